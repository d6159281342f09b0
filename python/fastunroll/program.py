"""A trained network as data: what its layers compute, for `fastunroll.runtime` and model files."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

Array = TypeVar("Array")

ARRAYS = (
    *("threshold", "step", "dictionary", "weight", "gram", "momentum"),
    *("rule_weight", "rule_bias", "prox_shape", "error_scale", "selection", "code_scale"),
)
"""The fields of a `Program` that hold arrays."""


@dataclass(frozen=True)
class Program(Generic[Array]):
    """K layers that run without torch; arrays of torch or NumPy.

    With c_k = b W_k and G_k = A^T W_k, where ``gram`` is not given, layer k computes

        y = x_k + momentum_k (x_k - x_{k-1})
        v = p G_k - c_k,  p = y  or, with ``heavy_ball``,  p = x_k
        x_{k+1} = prox(skip * y - step_k v; threshold_k, prox_shape_k)

    from x_0 = 0; the arguments are those of `fastunroll.unrolled_prox_gradient`. The original
    LISTA, x_{k+1} = S(b W1_k + x_k W2_k), has ``weight`` = W1, ``gram`` = -W2, ``skip`` = False and
    steps of 1.

    With ``error_scale`` the layers adapt to each sample, as those of HyperLISTA do: with
    e_k = ||error_scale v_k||_1, the threshold is threshold_k e_k, the momentum is
    momentum_k ||x_k||_0, and the share min(max(selection_k log(e_0 / e_k), 0), 1) of the atoms
    skips the shrinkage.

    Attributes
    ----------
    threshold : (K,) or (K, n)
    step : (K,) or (K, n); None where the rule gives it
    dictionary : A (m, n); None where ``gram`` and ``weight`` are given
    weight : W (m, n) or (K, m, n); None where W = A
    gram : G (n, n) or (K, n, n); None where G = A^T W
    momentum : (K,); None means 0
    rule_weight, rule_bias : w and c of `fastunroll.GradientNormStep` (K,)
    rule_minimum, rule_maximum : range of that step
    prox_shape : (K,), where ``prox`` has a shape
    error_scale : (n,) of adaptive layers
    selection : (K,), beside ``error_scale``
    code_scale : (n,), what the codes x_K are divided by at the end; None means 1
    prox : one of `fastunroll.ops.arguments.PROX_KINDS`
    bypass : counts of support selection, K ints or none
    """

    threshold: Array
    step: Array | None = None
    dictionary: Array | None = None
    weight: Array | None = None
    gram: Array | None = None
    momentum: Array | None = None
    rule_weight: Array | None = None
    rule_bias: Array | None = None
    prox_shape: Array | None = None
    error_scale: Array | None = None
    selection: Array | None = None
    code_scale: Array | None = None
    rule_minimum: float = 0.0
    rule_maximum: float = 1.0
    prox: str = "soft"
    bypass: tuple[int, ...] = ()
    skip: bool = True
    heavy_ball: bool = False

    @property
    def arrays(self) -> dict[str, Array]:
        """The arrays that are given, by name."""
        given = {name: getattr(self, name) for name in ARRAYS}
        return {name: array for name, array in given.items() if array is not None}

    @property
    def options(self) -> dict[str, Any]:
        """All that is no array; JSON can hold it."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ARRAYS}
