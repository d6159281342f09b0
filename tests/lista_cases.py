"""Networks of the LISTA family with random parameters, and their formulas in NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from helpers import dictionary
from torch import Tensor

from fastunroll.nn import (
    ALISTA,
    LIHT,
    LIHTCP,
    LISTA,
    LISTACP,
    StepLISTA,
    SupportSelection,
    TiLISTA,
)
from fastunroll.nn.prox_gradient import ProxGradientNetwork

M, N, K, BATCH = 10, 16, 4, 7
SELECTION = SupportSelection(8.0, 20.0)
COUNTS = (1, 3, 3, 3)
"""8, 16, 20 and 20 % of 16 atoms are 1.28, 2.56, 3.2 and 3.2 entries."""


class Case(NamedTuple):
    model: type[ProxGradientNetwork]
    options: dict[str, Any]
    n_parameters: int

    def __str__(self) -> str:
        return "-".join([self.model.__name__, *self.options])


SS = {"support_selection": SELECTION}
TIED, SHARED = {"tied": True}, {"shared_input": True}
CASES = [
    Case(LISTA, {}, K * (N * N + M * N + 1)),
    Case(LISTA, SS, K * (N * N + M * N + 1)),
    Case(LISTA, TIED, N * N + K * (M * N + 1)),
    Case(LISTA, SHARED, M * N + K * (N * N + 1)),
    Case(LISTA, {**TIED, **SHARED, **SS}, N * N + M * N + K),
    Case(LISTACP, {}, K * (M * N + 1)),
    Case(LISTACP, SS, K * (M * N + 1)),
    Case(LISTACP, {"prox": "nonnegative"}, K * (M * N + 1)),
    Case(TiLISTA, {}, M * N + 2 * K),
    Case(TiLISTA, SS, M * N + 2 * K),
    Case(ALISTA, {}, 2 * K),
    Case(ALISTA, SS, 2 * K),
    Case(ALISTA, {"weight": dictionary(M, N, seed=9)}, 2 * K),
    Case(StepLISTA, {"lam": 0.3}, K),
    Case(LIHT, {}, K * (N * N + M * N + 1)),
    Case(LIHT, {**TIED, **SHARED}, N * N + M * N + K),
    Case(LIHTCP, {}, K * (M * N + 1)),
]
MODELS = list(dict.fromkeys(case.model for case in CASES))


def build(case: Case) -> ProxGradientNetwork:
    return case.model(dictionary(M, N), K, **case.options)


def random_network(case: Case) -> ProxGradientNetwork:
    network = build(case)
    move(network, 0.02, 0.1)
    return network


@torch.no_grad()
def move(network: ProxGradientNetwork, least: float, spread: float) -> None:
    """Move every learned number away from its start; thresholds become least + spread |noise|."""
    g = torch.Generator().manual_seed(3)
    for name, p in network.named_parameters():
        noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.startswith("thresholds"):
            p.copy_(least + spread * noise.abs())
        elif name.startswith("steps"):
            p.mul_(0.6 + 0.1 * noise)
        else:
            p += 0.03 * noise


def measurements(seed: int = 5) -> Tensor:
    return torch.randn(BATCH, M, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shrink(u: np.ndarray, threshold: float, kind: str, count: int) -> np.ndarray:
    """Shrinkage of one sample in which the ``count`` largest entries above it keep their value."""
    if kind == "hard":
        return np.array([v if abs(v) > threshold else 0.0 for v in u])
    if kind == "smooth":
        return np.logaddexp(0, u - threshold) - np.logaddexp(0, -u - threshold)
    size = u if kind == "nonnegative" else np.abs(u)
    shrunk = np.sign(u) * np.maximum(size - threshold, 0)
    for i in np.argsort(-size)[:count]:
        if size[i] > threshold:
            shrunk[i] = u[i]
    return shrunk


def layer_input(network: ProxGradientNetwork, x: np.ndarray, b: np.ndarray, k: int) -> np.ndarray:
    """What layer k shrinks, by the paper's formula, from the file's tensors."""
    state = {name: t.numpy() for name, t in network.state_dict().items()}
    a = state["dictionary"]
    match network:
        case LISTA():
            w1, w2 = (t.detach().numpy() for t in network.matrices(k))
            return w1 @ b + w2 @ x
        case LISTACP():
            return x + state[f"weights.{k}"].T @ (b - a @ x)
        case TiLISTA() | ALISTA():
            return x - state[f"steps.{k}"] * state["weight"].T @ (a @ x - b)
        case StepLISTA():
            return x - state[f"steps.{k}"] * a.T @ (a @ x - b)
    raise AssertionError(type(network))


def transcription(network: ProxGradientNetwork, b: np.ndarray) -> np.ndarray:
    """Iterates (K + 1, batch, n), one sample at a time."""
    state = network.state_dict()
    iterates = np.zeros((network.n_layers + 1, len(b), network.dictionary.shape[1]))
    counts = COUNTS if network.support_selection == SELECTION else (0,) * network.n_layers
    for i, sample in enumerate(b):
        for k in range(network.n_layers):
            if isinstance(network, StepLISTA):
                threshold = network.lam * float(state[f"steps.{k}"])
            else:
                threshold = max(float(state[f"thresholds.{k}"]), 0.0)
            u = layer_input(network, iterates[k, i], sample, k)
            iterates[k + 1, i] = shrink(u, threshold, network.prox, counts[k])
    return iterates
