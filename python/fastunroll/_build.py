"""What was built, and what runs."""

from __future__ import annotations

from typing import Any

import torch

from fastunroll import _native


def build_info() -> dict[str, Any]:
    """Tell what was built and which instruction set is in use.

    Returns
    -------
    dict
        ``isa`` in use, ``supported_isas`` of this processor and build (best last), ``openmp``,
        ``compiler``, ``cuda`` (whether CUDA kernels were built), ``torch`` version, ``threads``.
    """
    return {
        **_native.build_info(),
        "cuda": False,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
