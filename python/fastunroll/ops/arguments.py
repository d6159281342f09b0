"""The arguments of the unrolled recursion, in the order of the operator's schema.

Sizes: ``batch`` B, ``n_measurements`` m, ``n_atoms`` n, ``n_layers`` K. One layer computes

    y = x_k + momentum_k (x_k - x_{k-1})
    v = (p A^T - b) W       (factored form)   or   v = p G - c   (Gram form)
    u = skip * y - step_k * v
    x_{k+1} = prox(u; threshold_k, prox_shape_k)

where the gradient is taken at ``p = y`` (Nesterov) or at ``p = x_k`` (heavy ball).

Where G is given without c, c = b W, and G is learned for itself if its gradient is wanted. Else it
is a shortcut through the forward pass that carries no gradient: the gradients of A, W and b are
those of the factored form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # `fastunroll.runtime` gets here without torch
    from torch import Tensor

PROX_KINDS = ("soft", "nonnegative", "hard", "smooth", "firm", "scad")
"""Proximal operators, in the order of the native enumeration."""

SELECTIVE = ("soft", "nonnegative", "hard")
"""Proximal operators with support selection; their slope is 1 or 0."""

LEAST_SHAPES = {"firm": 1.0, "scad": 2.0}
"""Proximal operators with a shape parameter, and the number that it must exceed."""


class UnrolledArguments(NamedTuple):
    """Arguments of ``fastunroll::unrolled``; the tensors that can carry a gradient come first."""

    linear: Tensor | None  # c: (1 or K, B, n), Gram form; None means c = b W
    gram: Tensor | None  # G: (1 or K, n, n), Gram form; None where only `packed` holds it
    dictionary: Tensor | None  # A: (m, n), factored form, c = b W and objective
    weight: Tensor | None  # W: (1 or K, m, n), factored form and c = b W; None means W = A
    measurements: Tensor | None  # b: (B, m), factored form, c = b W and objective
    initial: Tensor | None  # x_0: (B, n); None means 0
    step: Tensor | None  # (K, 1 or B, 1 or n); None when the step follows a rule
    threshold: Tensor  # (K, 1 or B, 1 or n)
    rule_weight: Tensor | None  # w of the gradient-norm rule: (K,)
    rule_bias: Tensor | None  # c of the gradient-norm rule: (K,)
    momentum: Tensor | None  # (K,); None means 0
    prox_shape: Tensor | None = None  # (K,) with the kinds of LEAST_SHAPES, else None
    previous: Tensor | None = None  # x_{-1}: (B, n); None means x_0; carries no gradient
    rule_minimum: float = 0.0  # alpha_min of the gradient-norm rule
    rule_maximum: float = 1.0  # alpha_max of the gradient-norm rule
    prox: str = "soft"  # one of PROX_KINDS
    bypass: tuple[int, ...] = ()  # support selection: entries per layer that skip the shrinkage
    skip: bool = True  # False: the layer does not add its input (original LISTA)
    heavy_ball: bool = False  # True: the gradient is taken at x_k, not at y_k
    objective_weight: float = 0.0  # lambda of F(x) = 1/2 ||x A^T - b||^2 + lambda ||x||_1
    with_objective: bool = False  # return F(x_k) for k = 0..K
    with_iterates: bool = False  # return x_k for k = 0..K
    packed: tuple[Tensor, ...] = ()  # copies of the matrices in the kernels' layout, or ()

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """The arguments that can receive a gradient, in their order."""
        return self[:N_DIFFERENTIABLE]  # type: ignore[return-value]

    def differentiated(self, needs: Sequence[bool]) -> UnrolledArguments:
        """The same recursion in the form that the backward pass follows.

        ``needs`` tells for each differentiable argument whether its gradient is wanted.
        """
        through_matrices = any(needs[_DICTIONARY : _MEASUREMENTS + 1])
        if self.gram_form and self.linear is None and through_matrices:
            return self._replace(gram=self.gram if needs[_GRAM] else None, packed=())
        return self

    @property
    def gram_form(self) -> bool:
        """Whether layers take G, be it a copy in the kernels' layout only, or A and W."""
        return self.gram is not None or (len(self.packed) > 0 and self.packed[0].numel() > 0)

    @property
    def n_layers(self) -> int:
        """Number of layers K."""
        return self.threshold.shape[0]

    @property
    def batch(self) -> int:
        """Number of samples B."""
        batched = self.linear if self.linear is not None else self.measurements
        assert batched is not None
        return batched.shape[-2]

    @property
    def n_atoms(self) -> int:
        """Number of atoms n."""
        matrix = self.gram if self.gram is not None else self.dictionary
        assert matrix is not None
        return matrix.shape[-1]


_GRAM = UnrolledArguments._fields.index("gram")
_DICTIONARY = UnrolledArguments._fields.index("dictionary")
_MEASUREMENTS = UnrolledArguments._fields.index("measurements")

N_DIFFERENTIABLE = 12
"""The first 12 fields of `UnrolledArguments` can receive a gradient."""
