"""Unrolled proximal-gradient networks on fused, support-sparse kernels."""

# torch first: its OpenMP runtime is the one that the kernels share.
import torch  # noqa: F401

from fastunroll._build import build_info
from fastunroll.backend import use_backend
from fastunroll.functional import (
    UnrolledResult,
    prox_gradient_step,
    smooth_soft_threshold,
    soft_threshold,
    unrolled_gram,
    unrolled_prox_gradient,
)
from fastunroll.layers import GradientNormStep
from fastunroll.prepared import PreparedDictionary, prepare

__version__ = "0.1.0"

__all__ = [
    "GradientNormStep",
    "PreparedDictionary",
    "UnrolledResult",
    "build_info",
    "prepare",
    "prox_gradient_step",
    "smooth_soft_threshold",
    "soft_threshold",
    "unrolled_gram",
    "unrolled_prox_gradient",
    "use_backend",
]
