"""What trained networks have learned: coupled weights, small thresholds, small coherence."""

from __future__ import annotations

import torch

from fastunroll.analysis.analytic import analytic_weight
from fastunroll.analysis.coherence import generalized_coherence, mutual_coherence
from fastunroll.nn import LISTA, LISTACP, TiLISTA


@torch.no_grad()
def coupling(network: LISTA) -> dict[str, list[float]]:
    """How far the weights of every layer are from W2 = I - W1 A, and its threshold.

    Chen, Liu, Wang, Yin (2018, theorem 1) show that a LISTA that recovers all codes has
    W2 - (I - W1 A) and the thresholds tend to zero.

    Returns
    -------
    dict
        ``"spectral"`` and ``"relative"``: the norm of the difference, and its Frobenius norm in
        units of that of W2; ``"thresholds"``.
    """
    a = network.dictionary
    identity = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    found: dict[str, list[float]] = {"spectral": [], "relative": []}
    for layer in range(network.n_layers):
        w1, w2 = network.matrices(layer)
        difference = w2 - (identity - w1 @ a)
        found["spectral"].append(float(torch.linalg.matrix_norm(difference, 2)))
        found["relative"].append(float(difference.norm() / w2.norm()))
    return {**found, "thresholds": [float(t) for t in network.thresholds]}


@torch.no_grad()
def coherences(networks: dict[str, LISTACP | TiLISTA]) -> dict[str, list[float]]:
    """Generalised coherence of the learned weights, one number per layer where they differ.

    Beside them: the analytic weights, which ALISTA takes, and the dictionary as its own weight.
    """
    a = next(iter(networks.values())).dictionary
    found = {
        "dictionary itself": [mutual_coherence(a)],
        "analytic": [generalized_coherence(a, analytic_weight(a))],
    }
    for name, network in networks.items():
        weights = [network.weight] if isinstance(network, TiLISTA) else list(network.weights)
        found[name] = [generalized_coherence(a, weight) for weight in weights]
    return found
