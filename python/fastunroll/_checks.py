"""Argument checks shared by every public entry: each names the argument and what was expected."""

from __future__ import annotations

import torch
from torch import Tensor

from fastunroll._scalars import check_choice as check_choice
from fastunroll._scalars import check_number as check_number
from fastunroll._scalars import check_positive_int as check_positive_int

SUPPORTED_DTYPES = (torch.float32, torch.float64)
HALF_DTYPES = (torch.float16, torch.bfloat16)


def check_tensor(name: str, value: object, ndims: tuple[int, ...], *, half: bool = False) -> Tensor:
    """Return ``value`` if it is a dense float32/float64 tensor with an allowed number of axes.

    With ``half``, a tensor on a GPU may be float16 or bfloat16, too.

    Raises
    ------
    TypeError
        If it is not a tensor, or has another dtype or layout.
    ValueError
        If its number of axes is not in ``ndims``.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    allowed_half = half and value.is_cuda and value.dtype in HALF_DTYPES
    if value.dtype not in SUPPORTED_DTYPES and not allowed_half:
        raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {value.layout}")
    if value.dim() not in ndims:
        allowed = ", ".join(map(str, ndims[:-1])) + (" or " if ndims[1:] else "") + str(ndims[-1])
        raise ValueError(f"{name} must have {allowed} axes, got shape {tuple(value.shape)}")
    return value


def check_like(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Require the same dtype (TypeError) and device (ValueError) as another tensor."""
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name} has dtype {value.dtype} but {other_name} has {other.dtype}; they must agree"
        )
    if value.device != other.device:
        raise ValueError(
            f"{name} is on {value.device} but {other_name} is on {other.device}; they must agree"
        )


def check_shape(name: str, value: Tensor, expected: tuple[int, ...], meaning: str) -> None:
    """Require an exact shape (ValueError); ``meaning`` says where it comes from."""
    if tuple(value.shape) != expected:
        raise ValueError(
            f"{name} must have shape {expected} ({meaning}), got shape {tuple(value.shape)}"
        )


def check_dictionary(name: str, value: object) -> Tensor:
    """Return a finite (m, n) dictionary without zero columns.

    Raises
    ------
    TypeError
        If it is not a dense float32/float64 tensor.
    ValueError
        If it is not a non-empty matrix, has NaN or Inf, or a column of zeros.
    """
    dictionary = check_tensor(name, value, (2,))
    if dictionary.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(dictionary.shape)}")
    if not bool(torch.isfinite(dictionary).all()):
        raise ValueError(f"{name} contains NaN or Inf")
    zero = (dictionary == 0).all(dim=0).nonzero().flatten()
    if zero.numel():
        raise ValueError(
            f"{name} has {zero.numel()} column(s) of zeros (first: column {int(zero[0])}); "
            "every atom must be non-zero"
        )
    return dictionary


def check_generator(name: str, value: object) -> torch.Generator:
    """Return ``value`` if it is a ``torch.Generator`` (TypeError otherwise)."""
    if not isinstance(value, torch.Generator):
        raise TypeError(f"{name} must be a torch.Generator, got {type(value).__name__}")
    return value


def check_dtype(name: str, value: object) -> torch.dtype:
    """Return ``value`` if it is ``torch.float32`` or ``torch.float64`` (TypeError otherwise)."""
    if not isinstance(value, torch.dtype) or value not in SUPPORTED_DTYPES:
        raise TypeError(f"{name} must be float32 or float64, got {value}")
    return value


def check_threshold(name: str, value: Tensor | float, u: Tensor) -> Tensor:
    """Return a threshold of ``u`` (batch, n) or (n,) as a tensor that broadcasts against it.

    Raises
    ------
    TypeError
        If it is neither a number nor a tensor of the dtype of ``u``.
    ValueError
        If a number is negative or not finite, or the shape of a tensor does not fit.
    """
    if not isinstance(value, Tensor):
        return u.new_full((), check_number(name, value, minimum=0.0))
    check_like(name, check_tensor(name, value, (0, 1, 2), half=True), "u", u)
    allowed = [(), (1,), (u.shape[-1],)]
    if u.dim() == 2:
        allowed += [(u.shape[0], 1), (1, u.shape[1]), (1, 1)]
    if tuple(value.shape) not in allowed:
        raise ValueError(
            f"{name} must be a scalar, (n,) or (batch, 1) for u of shape {tuple(u.shape)}, "
            f"got shape {tuple(value.shape)}"
        )
    return value
