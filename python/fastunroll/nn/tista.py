r"""TISTA: steps with the pseudo-inverse, and the MMSE shrinkage for sparse Gaussian codes.

One layer computes, for noise of variance sigma^2 and codes that are non-zero with probability p
and then normal with variance alpha^2,

    r_k = b - A x_k
    v_k = max((||r_k||^2 - m sigma^2) / tr(A^T A), eps)
    t_k = v_k / n (n + (g_k^2 - 2 g_k) rank A) + g_k^2 sigma^2 / n tr(A^+ A^+^T)
    x_{k+1} = E(x | z = x_k + g_k A^+ r_k, variance t_k)

and learns g_k: K numbers. The expectation is, with xi = alpha^2 + t and N(.; v) the normal density,

    E(x | z) = (alpha^2 / xi) z p N(z; xi) / ((1 - p) N(z; t) + p N(z; xi)).

Source: Ito, Takabe, Wadayama, "Trainable ISTA for sparse signal recovery", 2019, section III. The
paper writes m for the rank, which is m if the rows of A are independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fastunroll._checks import check_number, check_positive_int
from fastunroll.data.synthetic import SparseProblem
from fastunroll.nn.iterated import IteratedNetwork
from fastunroll.nn.prox_gradient import repeated

_SMALLEST_VARIANCE = 1e-9
"""eps, in units of alpha^2: smallest estimate of an error variance."""


class TISTA(IteratedNetwork):
    """TISTA: a dictionary and the statistics of codes and noise, and K learned numbers.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied.
    n_layers : int
        K.
    density : float
        p, the probability of a non-zero, in (0, 1).
    amplitude_std : float
        alpha, the standard deviation of the non-zeros.
    noise_std : float
        sigma, the standard deviation of the noise in each measurement.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    no_program = "has a shrinkage of its own, with a variance for each sample"

    pseudo_inverse: Tensor

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        density: float = 0.1,
        amplitude_std: float = 1.0,
        noise_std: float = 0.0,
    ) -> None:
        super().__init__(dictionary)
        n_layers = check_positive_int("n_layers", n_layers)
        self.density = check_number("density", density, minimum=0.0, exclusive=True)
        if self.density >= 1:
            raise ValueError(f"density must be less than 1, got {self.density:g}")
        self.amplitude_std = check_number(
            "amplitude_std", amplitude_std, minimum=0.0, exclusive=True
        )
        self.noise_std = check_number("noise_std", noise_std, minimum=0.0)
        a = self.dictionary.double()
        pseudo_inverse = torch.linalg.pinv(a, rtol=_tolerance(self.dictionary))
        self._energy = float(a.square().sum())
        self._rank = round(float((pseudo_inverse * a.mT).sum()))
        self._noise_gain = float(pseudo_inverse.square().sum())
        self.register_buffer("pseudo_inverse", pseudo_inverse.to(dictionary.dtype), False)
        self.steps = repeated(1.0, n_layers, dictionary)

    @classmethod
    def for_problem(cls, problem: SparseProblem, n_layers: int = 16) -> TISTA:
        """Build a network that knows the density, amplitude and mean noise of a problem.

        The noise of a `fastunroll.data.SparseProblem` has its own level in each sample; sigma^2
        becomes its mean, density amplitude_std^2 ||A||_F^2 / m / 10^(snr_db / 10).
        """
        variance = 0.0
        if problem.snr_db is not None:
            energy = float(problem.dictionary.double().square().sum())
            signal = problem.density * problem.amplitude_std**2 * energy
            variance = signal / problem.dictionary.shape[0] / 10 ** (problem.snr_db / 10)
        return cls(
            problem.dictionary,
            n_layers,
            density=problem.density,
            amplitude_std=problem.amplitude_std,
            noise_std=math.sqrt(variance),
        )

    def _codes(self, b: Tensor, n_layers: int) -> Iterator[Tensor]:
        x = b.new_zeros(len(b), self.dictionary.shape[1])
        for step in list(self.steps)[:n_layers]:
            residual = b - x @ self.dictionary.mT
            x = self._expectation(
                x + step * (residual @ self.pseudo_inverse.mT), self._variance(residual, step)
            )
            yield x

    def _variance(self, residual: Tensor, step: Tensor) -> Tensor:
        """t_k: (batch, 1)."""
        m, n = self.dictionary.shape
        smallest = _SMALLEST_VARIANCE * self.amplitude_std**2
        noise = self.noise_std**2
        energy = residual.square().sum(dim=1, keepdim=True)
        error = ((energy - m * noise) / self._energy).clamp(min=smallest)
        kept = 1 + (step.square() - 2 * step) * (self._rank / n)
        return (error * kept + step.square() * (noise * self._noise_gain / n)).clamp(min=smallest)

    def _expectation(self, z: Tensor, variance: Tensor) -> Tensor:
        """E(x | z); the ratio of densities is a logistic function, which cannot overflow."""
        signal = self.amplitude_std**2
        total = signal + variance
        gain = signal / total
        log_odds = (
            math.log(self.density / (1 - self.density))
            + 0.5 * (variance / total).log()
            + 0.5 * z.square() * (gain / variance)
        )
        return gain * z * torch.sigmoid(log_odds)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            **super().config(),
            "density": self.density,
            "amplitude_std": self.amplitude_std,
            "noise_std": self.noise_std,
        }


def _tolerance(dictionary: Tensor) -> float:
    """Ratio of singular values below which rows of a dictionary count as dependent."""
    return max(dictionary.shape) * torch.finfo(dictionary.dtype).eps
