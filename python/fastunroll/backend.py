"""Choice of the backend that runs the operators, and of its precision on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastunroll._scalars import check_choice

BACKENDS = ("auto", "reference")
PRECISIONS = ("auto", "float32", "tf32", "mixed")
_forced = "auto"
_precision = "auto"


def forced_backend() -> str:
    """The backend in force: ``"auto"`` (native kernels where there are any) or ``"reference"``."""
    return _forced


def forced_precision() -> str:
    """The precision in force, one of `PRECISIONS`."""
    return _precision


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the operators on a given backend inside a ``with`` block.

    Parameters
    ----------
    name : {"auto", "reference"}
        ``"reference"`` runs plain PyTorch everywhere, differentiable to any order.

    Notes
    -----
    The choice holds for the whole process, not for one thread.
    """
    global _forced
    before = _forced
    _forced = check_choice("name", name, BACKENDS)
    try:
        yield
    finally:
        _forced = before


@contextmanager
def use_precision(name: str) -> Iterator[None]:
    """Form the products of float32 matrices on a GPU in a given way inside a ``with`` block.

    Parameters
    ----------
    name : {"auto", "float32", "tf32", "mixed"}
        ``"float32"`` is as accurate as float32; ``"tf32"`` rounds every operand to 10 bits, where
        codes stop at an NMSE of about -70 dB; ``"mixed"``, in the factored form, rounds the
        adjoint product alone, to bfloat16, where its error vanishes with the residual.
        ``"auto"`` is ``"tf32"`` where PyTorch may use TF32 (`torch.set_float32_matmul_precision`),
        else ``"float32"``.

    Notes
    -----
    The choice holds for the whole process, not for one thread, and for the kernels on a GPU alone.
    A backward pass follows the choice at the time when it runs.
    """
    global _precision
    before = _precision
    _precision = check_choice("name", name, PRECISIONS)
    try:
        yield
    finally:
        _precision = before
