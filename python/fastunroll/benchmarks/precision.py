"""What the precision of the two products costs: recovery without noise, down to each one's floor.

The rounding of operands is simulated, with sums in float32, so this needs no GPU:

    python -m fastunroll.benchmarks.precision
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastunroll.analysis import analytic_weight
from fastunroll.data import make_sparse_problem
from fastunroll.metrics import nmse_db
from fastunroll.ops.reference import soft_threshold

Product = Callable[[Tensor, Tensor], Tensor]

DENSITY = 0.1
STEP, FIRST_THRESHOLD, DECAY = 0.95, 0.4, 0.94
N_LAYERS = 280
"""Thresholds fall by 0.54 dB a layer, and so does the error in float64."""

SHOWN = (16, 48, 80, 112)
"""Depths whose error the table shows."""

SAME_DB = 0.1
"""Difference up to which two errors count as the same."""


@dataclass(frozen=True, eq=False)
class Recovery:
    """A network with analytic weights that recovers codes without noise, ever more exactly."""

    dictionary: Tensor
    """A: (m, n)."""
    weight: Tensor
    """W: (m, n)."""
    thresholds: Tensor
    """(K,); every step is `STEP`."""
    measurements: Tensor
    """b: (batch, m)."""
    codes: Tensor
    """The true codes: (batch, n)."""

    def to(self, *where: torch.device | torch.dtype) -> Recovery:
        """The same on another device or in another precision."""
        moved = (t.to(*where) for t in vars(self).values())
        return Recovery(*moved)


def make_recovery(
    m: int = 250, n: int = 500, n_layers: int = N_LAYERS, batch: int = 64
) -> Recovery:
    """Random dictionary and codes of 10 % non-zeros, exact measurements; float64."""
    problem = make_sparse_problem(m, n, density=DENSITY, seed=0)
    dictionary = problem.dictionary.double()
    codes = problem.sample(batch, torch.Generator().manual_seed(1)).codes.double()
    thresholds = FIRST_THRESHOLD * DECAY ** torch.arange(n_layers, dtype=torch.float64)
    weight = analytic_weight(dictionary)
    return Recovery(dictionary, weight, thresholds, codes @ dictionary.mT, codes)


def to_tf32(x: Tensor) -> Tensor:
    """Round float32 to 10 bits of mantissa, ties away from zero, as tensor cores are given it."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def to_bf16(x: Tensor) -> Tensor:
    """Round float32 to 7 bits of mantissa."""
    return x.bfloat16().float()


def rounded(rounding: Callable[[Tensor], Tensor]) -> Product:
    """One product of rounded operands."""
    return lambda x, y: rounding(x) @ rounding(y)


def split(rounding: Callable[[Tensor], Tensor]) -> Product:
    """Three products of operands in two parts; that of the two small parts is left out."""

    def product(x: Tensor, y: Tensor) -> Tensor:
        x_high, y_high = rounding(x), rounding(y)
        x_low, y_low = rounding(x - x_high), rounding(y - y_high)
        return x_high @ y_high + (x_high @ y_low + x_low @ y_high)

    return product


MODES: dict[str, tuple[Product, Product]] = {
    "float32": (torch.matmul, torch.matmul),
    "3 x TF32": (split(to_tf32), split(to_tf32)),
    "3 x BF16, then BF16 (mixed)": (split(to_bf16), rounded(to_bf16)),
    "float32, then BF16": (torch.matmul, rounded(to_bf16)),
    "TF32": (rounded(to_tf32), rounded(to_tf32)),
    "TF32, then float32": (rounded(to_tf32), torch.matmul),
    "BF16": (rounded(to_bf16), rounded(to_bf16)),
}
"""Products x A^T and r W, by the name of the mode."""


def errors(problem: Recovery, forward: Product, adjoint: Product) -> list[float]:
    """NMSE in dB after each layer of x <- S(x - step (x A^T - b) W; threshold)."""
    p = problem
    x = torch.zeros_like(p.codes, dtype=p.dictionary.dtype)
    found = []
    for threshold in p.thresholds:
        residual = forward(x, p.dictionary.mT) - p.measurements
        x = soft_threshold(x - STEP * adjoint(residual, p.weight), threshold)
        found.append(float(nmse_db(x.double(), p.codes.double())))
    return found


def same_until(found: list[float], exact: list[float]) -> float:
    """The smallest error of the exact network down to which the other one has the same."""
    shared = [e for e, f in zip(exact, found, strict=True) if abs(e - f) > SAME_DB]
    first = exact.index(shared[0]) if shared else len(exact)
    return min(exact[:first], default=0.0)


def table(problem: Recovery) -> str:
    """Markdown: every mode's error at some depths, its least, and how long it is float32's."""
    depths = [k for k in SHOWN if k <= len(problem.thresholds)]
    heads = ["products", *(f"K={k}" for k in depths), "least", "as float32 down to"]
    single = problem.to(torch.float32)
    curves = {"float64": errors(problem, torch.matmul, torch.matmul)}
    curves |= {name: errors(single, *products) for name, products in MODES.items()}
    rows = [heads, ["---"] * len(heads)]
    for name, found in curves.items():
        numbers = [*(found[k - 1] for k in depths), min(found)]
        numbers.append(same_until(found, curves["float32"]))
        rows.append([name, *(f"{number:.1f}" for number in numbers)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table(make_recovery()))
