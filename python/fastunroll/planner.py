"""Choice between the Gram and the factored form, from a cost model in multiply-adds.

Per sample and layer, with codes of density d, the forward pass costs

    Gram       d n^2
    factored   d m n  (sparse product with A^T)  +  m n  (dense product with W)

and the backward pass about the same again for the incoming gradient and once more for the
parameters. The Gram form pays m n^2 for every Gram matrix that must be formed, three times that
when its gradient is carried back to A and W.
"""

from __future__ import annotations

TYPICAL_DENSITY = 0.15
"""Mean share of non-zeros of the iterates of trained networks."""

MAX_PREPARED_GRAM_ELEMENTS = 1 << 28
"""A prepared Gram matrix larger than this (1 GiB in float32) is not formed unless asked for."""


def choose_form(
    batch: int, shape: tuple[int, ...], n_layers: int, n_grams: int, training: bool
) -> str:
    """``"gram"`` or ``"factored"`` for dictionaries of ``shape`` (m, n) that change between calls.

    ``n_grams`` is 1 for weights tied over the layers, else the number of layers.
    """
    m, n = shape
    passes = 3 if training else 1
    per_sample = n_layers * passes
    gram = batch * per_sample * TYPICAL_DENSITY * n * n + n_grams * passes * m * n * n
    factored = batch * per_sample * m * n * (1 + TYPICAL_DENSITY)
    return "gram" if gram <= factored else "factored"


def choose_prepared_form(shape: tuple[int, ...], n_grams: int) -> str:
    """``"gram"`` or ``"factored"`` for a fixed dictionary: forming G is paid once."""
    m, n = shape
    if n_grams * n * n > MAX_PREPARED_GRAM_ELEMENTS:
        return "factored"
    return "gram" if TYPICAL_DENSITY * n <= (1 + TYPICAL_DENSITY) * m else "factored"
