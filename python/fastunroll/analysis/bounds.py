r"""Upper bounds of the smallest eigenvalue of the tangent kernel, in NTK scaling.

A smallest eigenvalue is at most every diagonal entry of the kernel, ||grad_w f_s(y_i)||^2. With
f = x_K / sqrt(n) and layers x_l = s(u_l), where u_l is linear in the weights of layer l, such an
entry is

    sum_l ||d f_s / d u_l||^2 (squared norms of the scaled inputs of layer l),

and as 0 <= s' <= 1, ||d f_s / d u_l|| is at most a product of spectral norms over sqrt(n). The
inputs of an unrolled layer are y / sqrt(m) and the codes / sqrt(n); those of a feed-forward layer
are the hidden units alone. That surplus is the paper's argument for unrolled networks. Source:
Shah, Pradhan, Pu, Randhi, Rodrigues, Eldar, "Optimization guarantees of unfolded ISTA and ADMM
networks with smooth soft-thresholding", IEEE TSP 72, 2024; the paper's constants are not used, but
the norms of the weights at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def lista_bound(weights: Sequence[Tensor], measurements: Tensor, codes: Sequence[Tensor]) -> float:
    """Bound of lambda_min(K) of LISTA, see `fastunroll.nn.SmoothLISTA`.

    Parameters
    ----------
    weights : K - 1 matrices (n, n)
        W2 of layers 2..K.
    measurements : (batch, m)
        y.
    codes : K - 1 tensors (batch, n)
        x_1..x_{K-1}.
    """
    norms = [_scaled_norm(weight) for weight in weights]
    sensitivities = [1.0]
    for norm in reversed(norms):
        sensitivities.insert(0, sensitivities[0] * norm)
    return _bound(sensitivities, _unrolled_energies(measurements, codes), codes[0].shape[1])


def admm_bound(
    weights: Sequence[Tensor], gamma: float, measurements: Tensor, states: Sequence[Tensor]
) -> float:
    """Bound of lambda_min(K) of ADMM-CSNet, see `fastunroll.nn.ADMMCSNet`.

    With D = s'(.) in [0, 1] and w = ||W2|| / sqrt(n), the norms of the derivatives of (z_l, u_l)
    in (z_{l-1}, u_{l-1}) are at most [[w, 1 + w], [gamma w, max(1, |1 - gamma|) + gamma w]].

    Parameters
    ----------
    weights : K - 1 matrices (n, n)
        W2 of layers 2..K.
    gamma : float
        Step of the dual variable.
    measurements : (batch, m)
        y.
    states : K - 1 tensors (batch, n)
        z_l - u_l, l = 1..K-1.
    """
    sensitivity = torch.tensor([1.0, 0.0], dtype=torch.float64)
    entry = torch.tensor([1.0, gamma], dtype=torch.float64)
    sensitivities = [float(sensitivity @ entry)]
    for weight in reversed(weights):
        w = _scaled_norm(weight)
        rows = [[w, 1 + w], [gamma * w, max(1.0, abs(1 - gamma)) + gamma * w]]
        sensitivity = sensitivity @ torch.tensor(rows, dtype=torch.float64)
        sensitivities.insert(0, float(sensitivity @ entry))
    return _bound(sensitivities, _unrolled_energies(measurements, states), states[0].shape[1])


def feed_forward_bound(weights: Sequence[Tensor], activations: Sequence[Tensor]) -> float:
    """Bound of lambda_min(K) of the feed-forward network, see `fastunroll.nn.FeedForward`.

    Parameters
    ----------
    weights : K matrices
        W_1..W_K.
    activations : K tensors (batch, width)
        Inputs of layers 1..K: y, x_1, ..., x_{K-1}.
    """
    sensitivities = [1.0]
    for weight in reversed(weights[1:]):
        sensitivities.insert(0, sensitivities[0] * _scaled_norm(weight))
    return _bound(sensitivities, [_energy(x) for x in activations], weights[-1].shape[0])


def _scaled_norm(weight: Tensor) -> float:
    """||W||_2 / sqrt(number of columns)."""
    norm = torch.linalg.matrix_norm(weight.detach(), 2)
    return float(norm / weight.shape[1] ** 0.5)


def _energy(rows: Tensor) -> Tensor:
    """||row||^2 / (number of columns) in float64: (batch,)."""
    return rows.detach().double().square().mean(dim=1)


def _unrolled_energies(measurements: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """Energy of the inputs of each unrolled layer; the first starts from 0: (batch,) each."""
    direct = _energy(measurements)
    return [direct, *(direct + _energy(state) for state in states)]


def _bound(sensitivities: Sequence[float], energies: Sequence[Tensor], n_outputs: int) -> float:
    """Least sum over the layers of sensitivity^2 energy / n_outputs, over the samples."""
    terms = [s**2 * e for s, e in zip(sensitivities, energies, strict=True)]
    return float(torch.stack(terms).sum(dim=0).min()) / n_outputs
