"""Reading of model files, as tensors of torch or arrays of NumPy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

FORMAT = 1
"""Version of the layout that `fastunroll.io.save_tensors` writes."""

KEY = "fastunroll"
"""Name of the description, a JSON text, in the file's metadata."""

PROGRAM = "program"
"""Name of the `fastunroll.program.Program` in a description, and prefix of its arrays."""

NO_PROGRAM = "no_program"
"""Name of the reason why there is no program in a description."""


def read_file(
    path: str | os.PathLike[str], framework: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the arrays and the description of a file.

    Parameters
    ----------
    path : path
    framework : {"pt", "np"}
        Whether to return tensors of torch or arrays of NumPy.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, was not written by fastunroll, or has an unknown format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, framework=framework) as file:
            text = (file.metadata() or {}).get(KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    try:
        description = json.loads(text) if text else None
    except json.JSONDecodeError:
        description = None
    if not isinstance(description, dict):
        raise ValueError(f"{path} is a safetensors file, but not one written by fastunroll")
    if description.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {description.get('format')}, but this version of fastunroll "
            f"reads format {FORMAT}"
        )
    return arrays, description
