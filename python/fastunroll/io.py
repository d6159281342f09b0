"""Files: atomic writes, and networks saved as data only (safetensors and JSON, never pickle)."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import fastunroll
from fastunroll.nn import MODELS, UnrolledNetwork

FORMAT = 1
"""Version of the layout written by `save_tensors`."""

_KEY = "fastunroll"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file beside its place and rename it when complete.

    Readers see the old file or the new one, never a part; an error leaves the old file as it was.

    Parameters
    ----------
    path : path
        The file to write; its folder is made if there is none.

    Yields
    ------
    Path
        Where to write: a new name in the same folder with the same suffix.

    Examples
    --------
    >>> with atomic_write("table.csv") as temporary:
    ...     temporary.write_text("a,b")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        # Without this, a power cut after the rename may leave an empty file in place of the old.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_model(model: UnrolledNetwork, path: str | os.PathLike[str]) -> None:
    """Save a network: its tensors, bit for bit, its class name and its configuration.

    Parameters
    ----------
    model : UnrolledNetwork
        One of the classes in `fastunroll.nn.MODELS`.
    path : path
        A ``.safetensors`` file.

    Raises
    ------
    TypeError
        If ``model`` is of another class.
    ValueError
        If ``path`` has another suffix.
    """
    name = type(model).__name__
    if MODELS.get(name) is not type(model):
        raise TypeError(f"model must be one of {', '.join(MODELS)}; got {name}")
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {os.fspath(path)!r}")
    save_tensors(model.state_dict(), {"model": name, "config": model.config()}, path)


def load_model(path: str | os.PathLike[str]) -> UnrolledNetwork:
    """Load a network saved by `save_model`, on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, foreign, of an unknown format or model, or if its tensors do not
        fit its configuration.
    """
    tensors, description = load_tensors(path)
    if "model" not in description:
        raise ValueError(f"{path} holds no fastunroll model; expected a file of save_model()")
    name = description["model"]
    if name not in MODELS:
        raise ValueError(f"{path} holds the unknown model {name!r}; known: {', '.join(MODELS)}")
    try:
        model = MODELS[name].from_config(description["config"], tensors)
    except KeyError as error:
        raise ValueError(f"{path}: {name} needs {error}, which the file lacks") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not the configuration of a {name}: {error}") from error
    check_state(tensors, model.state_dict(), f"{path}: {name}")
    model.load_state_dict(tensors)
    return model


def save_tensors(
    tensors: Mapping[str, Tensor], description: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Write named tensors and a description that JSON can hold to one safetensors file."""
    text = json.dumps({"format": FORMAT, "version": fastunroll.__version__, **description})
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(plain, temporary, metadata={_KEY: text})


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the description that `save_tensors` wrote.

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
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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
    return tensors, description


def check_state(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Require the names, shapes and dtypes of a ``state_dict``.

    Raises
    ------
    ValueError
        With a message that begins with ``where``.
    """
    missing, unknown = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or unknown:
        raise ValueError(f"{where} lacks {sorted(missing)} and has unknown {sorted(unknown)}")
    for name, tensor in expected.items():
        have = found[name]
        if have.shape != tensor.shape or have.dtype != tensor.dtype:
            raise ValueError(
                f"{where} needs {name} of shape {tuple(tensor.shape)} and {tensor.dtype}, "
                f"got {tuple(have.shape)} and {have.dtype}"
            )
