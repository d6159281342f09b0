"""Operations and bytes of a job, and the least time that they take on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fastunroll.benchmarks.gpu.timing import Clock

FLOAT = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Job:
    """What is timed."""

    kind: str = "forward"
    """``"forward"``; ``"training"``, a forward and a backward pass; or ``"shrink"``, the bare soft
    threshold forward and backward."""
    batch: int = 1
    m: int = 250
    n: int = 500
    n_layers: int = 16

    @property
    def title(self) -> str:
        """One line."""
        if self.kind == "shrink":
            return f"soft threshold, ({self.batch}, {self.n})"
        return f"{self.kind} B={self.batch}, ({self.m}, {self.n}), K={self.n_layers}"

    @property
    def operations(self) -> tuple[int, int]:
        """Floating-point operations of products with A^T, and of those with W; no zero is skipped.

        x_0 = 0 spares the first product with A^T. Back through a layer, each of the two products is
        followed by two of its size: the gradient of its input and that of its matrix.
        """
        if self.kind == "shrink":
            return 0, 0
        one = 2 * self.batch * self.m * self.n
        passes = 3 if self.kind == "training" else 1
        return passes * one * (self.n_layers - 1), passes * one * self.n_layers

    @property
    def least_bytes(self) -> int:
        """Each input read once, each result written once."""
        rows, matrices = self.batch * (self.m + self.n), 2 * self.m * self.n
        if self.kind == "shrink":  # u, x; then the gradient of x, u, the gradient of u
            return 5 * self.batch * self.n * FLOAT
        if self.kind == "training":  # the true codes instead of ours; gradients of the matrices
            return (rows + 2 * matrices) * FLOAT
        return (rows + matrices) * FLOAT


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of a device."""

    copy: float
    """Bytes per second of a copy, read and written."""
    float32: float
    """Operations per second of a product."""
    tf32: float
    bf16: float

    def seconds(self, job: Job, precision: str) -> float:
        """The least time of a job in a mode.

        At float32's accuracy a product takes float32 units, or three products of tensor cores; the
        mixed mode takes three BF16 products for A^T and one for W.
        """
        forward, adjoint = job.operations
        arithmetic = {
            "float32": (forward + adjoint) / max(self.float32, self.tf32 / 3),
            "tf32": (forward + adjoint) / self.tf32,
            "mixed": (3 * forward + adjoint) / self.bf16,
        }[precision]
        return max(arithmetic, job.least_bytes / self.copy)


def measure_ceilings(clock: Clock, size: int = 8192) -> Ceilings:
    """Rates of a large copy and of large square products, on random numbers."""
    device = clock.device
    x = torch.randn(size, size, device=device)
    y = torch.randn(size, size, device=device)

    def rate(amount: float, call: Callable[[], object]) -> float:
        return amount / clock.median({"": lambda i: call()}, 1, rounds=5)[""]

    copy = rate(2 * FLOAT * size * size, lambda: y.copy_(x))
    found = {}
    for name in ("float32", "tf32"):
        with clock.matmul_precision(name):
            found[name] = rate(2 * size**3, lambda: x @ y)
    x, y = x.bfloat16(), y.bfloat16()
    return Ceilings(copy, found["float32"], found["tf32"], rate(2 * size**3, lambda: x @ y))
