r"""ADMM-CSNet: unrolled ADMM for the LASSO.

One layer computes, from z_0 = u_0 = 0,

    x_l = W1_l b + W2_l (z_{l-1} - u_{l-1})
    z_l = shrink_l(x_l + u_{l-1})
    u_l = u_{l-1} + gamma_l (x_l - z_l)

and returns z_K. At the start W1 = (A^T A + rho I)^{-1} A^T, W2 = rho (A^T A + rho I)^{-1},
gamma = 1 and the threshold is lambda / rho: then the network *is* ADMM. In the scaling of the
neural tangent kernel W1 b / sqrt(m) and W2 (z - u) / sqrt(n) take the place of the two products.
Sources: Yang, Sun, Li, Xu, "ADMM-CSNet: a deep learning approach for image compressive sensing",
IEEE TPAMI 42(3), 2020; for the NTK scaling Shah, Pradhan, Pu, Randhi, Rodrigues, Eldar,
"Optimization guarantees of unfolded ISTA and ADMM networks with smooth soft-thresholding", IEEE
TSP 72, 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastunroll._checks import check_choice, check_number, check_positive_int
from fastunroll.functional import smooth_soft_threshold, soft_threshold
from fastunroll.nn.dense import DenseNetwork
from fastunroll.nn.piecewise_linear import PiecewiseLinear
from fastunroll.nn.thresholds import at_least_zero

SCALINGS = ("standard", "ntk")
SHRINKAGES = ("soft", "smooth", "piecewise-linear")


class AdmmState(NamedTuple):
    """What a layer hands on, (batch, n_atoms) each."""

    z: Tensor
    """Codes."""
    u: Tensor
    """Scaled dual variable."""


class ADMMCSNet(DenseNetwork):
    """ADMM-CSNet; K m n + (K - 1) n^2 learned numbers, gamma and those of the shrinkage.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied. A complex one takes complex measurements, such as an
        undersampled Fourier transform, and gives real codes.
    n_layers : int
        K.
    lam : float
        lambda of the LASSO whose ADMM is the start; positive.
    rho : float
        Its penalty; positive.
    tied : bool
        One W1 and one W2 for all layers.
    scaling : {"standard", "ntk"}
        "ntk" divides the products by sqrt(m) and sqrt(n), and begins with weights that much larger.
    shrinkage : {"soft", "smooth", "piecewise-linear"}
        One per layer: a threshold of the soft or the smooth shrinkage, or a `PiecewiseLinear`. The
        start is ADMM for all but "smooth".
    learn_shrinkage : bool
        False keeps the shrinkage and gamma as they are.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    no_program = "has the layers of ADMM, with multipliers"

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        lam: float = 0.1,
        rho: float = 1.0,
        tied: bool = False,
        scaling: str = "standard",
        shrinkage: str = "soft",
        learn_shrinkage: bool = True,
    ) -> None:
        super().__init__(dictionary)
        check_positive_int("n_layers", n_layers)
        lam = check_number("lam", lam, minimum=0.0, exclusive=True)
        rho = check_number("rho", rho, minimum=0.0, exclusive=True)
        self.tied, self.learn_shrinkage = tied, learn_shrinkage
        self.scaling = check_choice("scaling", scaling, SCALINGS)
        self.shrinkage = check_choice("shrinkage", shrinkage, SHRINKAGES)
        first, second = _admm_matrices(self.dictionary, rho)
        if scaling == "ntk":
            m, n = self.dictionary.shape
            first, second = first * m**0.5, second * n**0.5
        copies = 1 if tied else n_layers
        self.input_weights = nn.ParameterList(nn.Parameter(first.clone()) for _ in range(copies))
        copies = min(1, n_layers - 1) if tied else n_layers - 1
        self.weights = nn.ParameterList(nn.Parameter(second.clone()) for _ in range(copies))
        self.steps = nn.ParameterList(self._number(1.0) for _ in range(n_layers))
        if shrinkage == "piecewise-linear":
            functions = [
                PiecewiseLinear(lam / rho, dtype=first.dtype).requires_grad_(learn_shrinkage)
                for _ in range(n_layers)
            ]
            self.functions = nn.ModuleList(functions)
        else:
            self.thresholds = nn.ParameterList(self._number(lam / rho) for _ in range(n_layers))

    @classmethod
    def random(
        cls,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        threshold: float = 1.0,
        tied: bool = False,
        seed: int = 0,
    ) -> ADMMCSNet:
        """Build the network of the optimisation theory: NTK scaling, weights N(0, 1).

        Shrinkage and gamma are kept as they are.

        Parameters
        ----------
        dictionary, n_layers, tied
            As in the constructor.
        threshold : float
            Threshold of the smooth shrinkage, positive.
        seed : int
            Seed of the weights.

        Raises
        ------
        TypeError, ValueError
            With the name of the argument that does not fit.
        """
        check_number("threshold", threshold, minimum=0.0, exclusive=True)
        network = cls(
            *(dictionary, n_layers),
            lam=threshold,
            tied=tied,
            scaling="ntk",
            shrinkage="smooth",
            learn_shrinkage=False,
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in (*network.input_weights, *network.weights):
                weight.normal_(generator=generator)
        return network

    @property
    def n_layers(self) -> int:
        """Number of layers K."""
        return len(self.steps)

    def states(self, b: Tensor) -> Iterator[AdmmState]:
        """State after each layer, from b (batch, n_measurements), real."""
        n_atoms = self.dictionary.shape[1]
        input_scale, scale = (
            (1.0, 1.0) if self.scaling == "standard" else (b.shape[-1] ** -0.5, n_atoms**-0.5)
        )
        z = u = b.new_zeros(len(b), n_atoms)
        for k in range(self.n_layers):
            x = input_scale * (b @ self.input_weights[0 if self.tied else k].mT)
            if k > 0:
                x = x + scale * ((z - u) @ self.weights[0 if self.tied else k - 1].mT)
            z = self._shrink(x + u, k)
            u = u + self.steps[k] * (x - z)
            yield AdmmState(z, u)

    def layers(self, b: Tensor) -> Iterator[Tensor]:
        """z_1, ..., z_K, (batch, n_atoms) each, from b (batch, n_measurements)."""
        return (state.z for state in self.states(b))

    def _shrink(self, u: Tensor, layer: int) -> Tensor:
        """Shrinkage of one layer."""
        if self.shrinkage == "piecewise-linear":
            shrunk: Tensor = self.functions[layer](u)
            return shrunk
        threshold = at_least_zero(self.thresholds[layer])
        return (
            soft_threshold(u, threshold)
            if self.shrinkage == "soft"
            else smooth_soft_threshold(u, threshold)
        )

    def _number(self, value: float) -> nn.Parameter:
        return nn.Parameter(self.dictionary.new_tensor(value), requires_grad=self.learn_shrinkage)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            **super().config(),
            "tied": self.tied,
            "scaling": self.scaling,
            "shrinkage": self.shrinkage,
            "learn_shrinkage": self.learn_shrinkage,
        }


def _admm_matrices(dictionary: Tensor, rho: float) -> tuple[Tensor, Tensor]:
    """(A^T A + rho I)^{-1} A^T and rho (A^T A + rho I)^{-1}, computed in float64.

    Raises
    ------
    ValueError
        If A^T A + rho I is singular in float64.
    """
    a = dictionary.double()
    values, vectors = torch.linalg.eigh(a.mT @ a)
    shifted = values.clamp(min=0.0) + rho
    if shifted[0] <= len(values) * torch.finfo(a.dtype).eps * shifted[-1]:
        raise ValueError(
            f"rho = {rho:g} is too small: A^T A is singular, and so is A^T A + rho I to working "
            f"precision; expected rho well above {1e-15 * float(shifted[-1]):.1g}"
        )
    inverse = (vectors / shifted) @ vectors.mT
    return (inverse @ a.mT).to(dictionary.dtype), (rho * inverse).to(dictionary.dtype)
