"""What was built, and what runs."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from fastunroll import _native


def build_info() -> dict[str, Any]:
    """Tell what was built and which instruction set is in use.

    Returns
    -------
    dict
        ``isa`` in use, ``supported_isas`` of this processor and build (best last), ``openmp``,
        ``compiler``, ``cuda`` (nvcc and architectures of the CUDA kernels, None where they were not
        built), ``torch`` version, ``threads``.
    """
    return {
        **_native.build_info(),
        "cuda": _cuda(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _cuda() -> str | None:
    if find_spec("fastunroll._cuda") is None:
        return None
    module = import_module("fastunroll._cuda")
    return f"nvcc {module.compiler} for {module.architectures}"
