"""Unrolled proximal-gradient networks on fused, support-sparse kernels.

The names below load torch when they are first used; `fastunroll.runtime` does without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastunroll import runtime
    from fastunroll._build import build_info
    from fastunroll.backend import use_backend, use_precision
    from fastunroll.functional import (
        UnrolledResult,
        prox_gradient_step,
        smooth_soft_threshold,
        soft_threshold,
        unrolled_gram,
        unrolled_prox_gradient,
    )
    from fastunroll.layers import GradientNormStep
    from fastunroll.planner import explain
    from fastunroll.prepared import PreparedDictionary, prepare

__version__ = "0.1.0"

__all__ = [
    "GradientNormStep",
    "PreparedDictionary",
    "UnrolledResult",
    "build_info",
    "explain",
    "prepare",
    "prox_gradient_step",
    "runtime",
    "smooth_soft_threshold",
    "soft_threshold",
    "unrolled_gram",
    "unrolled_prox_gradient",
    "use_backend",
    "use_precision",
]

_MODULES = {
    "GradientNormStep": "layers",
    "PreparedDictionary": "prepared",
    "build_info": "_build",
    "explain": "planner",
    "prepare": "prepared",
    "use_backend": "backend",
    "use_precision": "backend",
}
"""Where the names are defined, if not in `functional`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "runtime":
        return import_module("fastunroll.runtime")
    import torch  # noqa: F401  its OpenMP runtime is the one that the kernels share

    value = getattr(import_module(f"fastunroll.{_MODULES.get(name, 'functional')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
