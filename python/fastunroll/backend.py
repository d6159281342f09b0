"""Choice of the backend that runs the operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastunroll._checks import check_choice

BACKENDS = ("auto", "reference")
_forced = "auto"


def forced_backend() -> str:
    """The backend in force: ``"auto"`` (native kernels where there are any) or ``"reference"``."""
    return _forced


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
