"""Choice of the form in which the recursion runs, from a cost model in multiply-adds.

Per sample and layer, with codes of density d, the forward pass costs

    Gram       d n^2                  a sparse product
    factored   d m n  +  m n / r      a sparse product with A^T, a dense one with W

where a dense product runs r times as fast per multiply-add as one of lists. The Gram form also
needs c = b W, m n / r for a sample and each W: as much as the dense product of the factored form
where every layer has its own W. Every Gram matrix that must be formed costs m n^2 / r, half of it
where W = A and no gradient goes through it. When A or W learn, the backward pass adds

    Gram       2 d n^2                the adjoint product and dG; 2 m n^2 / r per Gram matrix and,
                                      for dW from dc, m n / r for each W
    factored   5 d m n                residual, two adjoint products, and a sum each for A and W

The mixed form is Gram forward and factored backward. Whether a single product takes the lists or
dense rows is no matter of planning: the kernels look at the lists, tile by tile.

On a GPU all products are dense, and the backward pass runs forward again first:

    Gram       n^2     backward  3 n^2;  forming m n^2 per Gram matrix, and twice that backward
    factored   2 m n   backward  6 m n;  with mixed precision a third of it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastunroll._scalars import check_choice, check_number, check_positive_int
from fastunroll.backend import forced_precision

TYPICAL_DENSITY = 0.15
"""Mean share of non-zeros of the iterates of trained networks."""

DENSE_RATE = 2.0
"""Speed of dense products over that of sparse ones, per multiply-add, in float32 with AVX-512."""

MIXED_SHARE = 1 / 3
"""Time of the factored form in mixed precision, three BF16 products and one, over that of two times
three TF32 products, which take twice as long each."""

MAX_PREPARED_GRAM_ELEMENTS = 1 << 28
"""A prepared Gram matrix larger than this (1 GiB in float32) is not formed unless asked for."""


class Plan(NamedTuple):
    """A form, and what the alternatives were expected to cost."""

    form: str
    """``"gram"``, ``"factored"`` or ``"mixed"``."""
    costs: dict[str, float]
    """Multiply-adds of every form, in those of sparse products."""


def plan(
    batch: int,
    shape: Sequence[int],
    n_layers: int,
    *,
    n_weights: int = 1,
    symmetric: bool = False,
    learns_matrices: bool = False,
    density: float = TYPICAL_DENSITY,
    device: str = "cpu",
) -> Plan:
    """Choose the form for a dictionary that changes between calls.

    Parameters
    ----------
    batch : int
        Samples of a call.
    shape : (int, int)
        (n_measurements, n_atoms).
    n_layers : int
        K.
    n_weights : int
        1 for weights W tied over the layers, else K.
    symmetric : bool
        Whether W = A.
    learns_matrices : bool
        Whether a gradient reaches A or W.
    density : float
        Expected share of non-zeros of the codes between the layers; means nothing on a GPU.
    device : {"cpu", "cuda"}
        Type of the device.

    Returns
    -------
    Plan
    """
    m, n = shape
    applications = batch * n_layers
    if device == "cuda":
        return _plan_cuda(applications, m, n, n_weights, learns_matrices)
    sparse = applications * density
    forming = n_weights * m * n * n / DENSE_RATE
    linear = batch * n_weights * m * n / DENSE_RATE
    gram = sparse * n * n + linear + (forming / 2 if symmetric else forming)
    factored = applications * m * n * (density + 1 / DENSE_RATE)
    if not learns_matrices:
        costs = {"gram": gram, "factored": factored}
    else:
        factored_backward = sparse * 5 * m * n
        costs = {
            "gram": sparse * 3 * n * n + 3 * forming + 2 * linear,
            "factored": factored + factored_backward,
            "mixed": gram + factored_backward,
        }
    return Plan(min(costs, key=costs.__getitem__), costs)


def _plan_cuda(applications: int, m: int, n: int, n_weights: int, learns_matrices: bool) -> Plan:
    """As `plan`, where all products are dense."""
    forming = n_weights * m * n * n
    gram = applications * n * n
    factored = applications * 2 * m * n * _factored_share()
    costs = {"gram": gram + forming, "factored": factored}
    if learns_matrices:
        costs = {
            "gram": 4 * gram + 3 * forming,
            "factored": 4 * factored,
            "mixed": gram + forming + 3 * factored,
        }
    return Plan(min(costs, key=costs.__getitem__), costs)


def _factored_share() -> float:
    return MIXED_SHARE if forced_precision() == "mixed" else 1.0


def plan_prepared(shape: Sequence[int], n_weights: int = 1, *, device: str = "cpu") -> Plan:
    """Choose the form for a fixed dictionary: forming G is paid once, if there is memory for it.

    Parameters
    ----------
    shape : (int, int)
        (n_measurements, n_atoms).
    n_weights : int
        1 for weights W tied over the layers, else K.
    device : {"cpu", "cuda"}
        Type of the device.

    Returns
    -------
    Plan
        With the costs of one sample and layer, where c = b W of tied weights counts for nothing.
    """
    m, n = shape
    costs = {
        "gram": TYPICAL_DENSITY * n * n + (m * n / DENSE_RATE if n_weights > 1 else 0),
        "factored": m * n * (TYPICAL_DENSITY + 1 / DENSE_RATE),
    }
    if device == "cuda":
        costs = {"gram": float(n * n), "factored": 2 * m * n * _factored_share()}
    if n_weights * n * n > MAX_PREPARED_GRAM_ELEMENTS:
        return Plan("factored", costs)
    return Plan(min(costs, key=costs.__getitem__), costs)


def explain(
    batch: int,
    shape: Sequence[int],
    n_layers: int,
    *,
    n_weights: int = 1,
    symmetric: bool = False,
    learns_matrices: bool = False,
    density: float = TYPICAL_DENSITY,
    device: str = "cpu",
) -> str:
    """Say in a few lines which form a call would take, and why.

    ``form=`` of `fastunroll.unrolled_prox_gradient` and `fastunroll.prepare` overrides the choice.

    Parameters
    ----------
    batch, shape, n_layers, n_weights, symmetric, learns_matrices, density, device
        As in `plan`.

    Returns
    -------
    str

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Examples
    --------
    >>> print(fastunroll.explain(64, (250, 500), 16, learns_matrices=True))
    """
    check_positive_int("batch", batch)
    check_positive_int("n_layers", n_layers)
    check_positive_int("n_weights", n_weights)
    if len(shape) != 2:
        raise ValueError(f"shape must be (n_measurements, n_atoms), got {tuple(shape)}")
    for size in shape:
        check_positive_int("shape", size)
    if check_number("density", density, minimum=0.0) > 1:
        raise ValueError(f"density must be at most 1, got {density:g}")
    check_choice("device", device, ("cpu", "cuda"))
    chosen = plan(
        batch,
        shape,
        n_layers,
        n_weights=n_weights,
        symmetric=symmetric,
        learns_matrices=learns_matrices,
        density=density,
        device=device,
    )
    prepared = plan_prepared(shape, n_weights, device=device)
    purpose = "training of A or W" if learns_matrices else "A and W given"
    lines = [
        f"(m, n) = {tuple(shape)}, {n_layers} layers, {n_weights} W, batch {batch}, "
        f"{'GPU' if device == 'cuda' else f'density {density:g}'}, {purpose}: {chosen.form}"
    ]
    for form, cost in sorted(chosen.costs.items(), key=lambda item: item[1]):
        lines.append(f"  {form:8}  {cost / batch / 1e6:10.3f} M multiply-adds a sample")
    lines.append(f"prepared once with prepare(): {prepared.form}")
    return "\n".join(lines)
