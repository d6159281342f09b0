"""Where the arrays lie that native code reads: what all backends with pointers share."""

from __future__ import annotations

from torch import Tensor

from fastunroll.ops import native


def address(tensor: Tensor | None) -> int:
    """Address of the first element; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def parameter(value: Tensor | None) -> native.Parameter:
    """Tell the kernels of steps or thresholds (K, 1 or B, 1 or n)."""
    if value is None:
        return native.Parameter()
    return native.parameter(value.data_ptr(), value.shape, value.stride())


def rows_contiguous(value: Tensor | None) -> Tensor | None:
    """The steps or thresholds with unit stride over their atoms."""
    if value is None or value.shape[2] == 1 or value.stride(2) == 1:
        return value
    return value.contiguous()


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """The tensor in contiguous memory, copied only where it is not."""
    return None if tensor is None else tensor.contiguous()
