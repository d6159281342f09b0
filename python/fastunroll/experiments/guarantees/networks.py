"""The three networks that are compared, and the data that they see."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fastunroll.analysis.bounds import admm_bound, feed_forward_bound, lista_bound
from fastunroll.data import SparseBatch, SparseProblem, make_sparse_problem
from fastunroll.functional import smooth_soft_threshold
from fastunroll.nn import ADMMCSNet, FeedForward, SmoothLISTA

LISTA, ADMM, FEED_FORWARD = "LISTA", "ADMM-CSNet", "feed-forward"
UNROLLED = (LISTA, ADMM)
NETWORKS = (*UNROLLED, FEED_FORWARD)


class Readout(nn.Module):
    """A network read out as f(y) = x_K / sqrt(n), the scaling in which the theory holds."""

    def __init__(self, network: SmoothLISTA | ADMMCSNet | FeedForward) -> None:
        super().__init__()
        self.network = network

    def forward(self, b: Tensor) -> Tensor:
        """f(y) (batch, n_atoms) of measurements (batch, n_measurements)."""
        codes = self.network(b)
        scaled: Tensor = codes / codes.shape[-1] ** 0.5
        return scaled


def make_network(name: str, dictionary: Tensor, n_layers: int, seed: int) -> Readout:
    """Build one of `NETWORKS` with random weights; all have the same number of parameters."""
    if name == ADMM:
        return Readout(ADMMCSNet.random(dictionary, n_layers, seed=seed))
    lista = SmoothLISTA(dictionary, n_layers, seed=seed)
    return Readout(lista if name == LISTA else FeedForward.like(lista, seed=seed))


@torch.no_grad()
def kernel_bound(readout: Readout, b: Tensor) -> float:
    """Upper bound of lambda_min(K) from the norms of the weights, see `fastunroll.analysis`."""
    network = readout.network
    if isinstance(network, FeedForward):
        return feed_forward_bound(list(network.weights), network.activations(b)[:-1])
    weights = list(network.weights)
    if isinstance(network, SmoothLISTA):
        return lista_bound(weights, b, list(network.layers(b))[:-1])
    states = [state.z - state.u for state in network.states(b)]
    return admm_bound(weights, float(network.steps[0]), b, states[:-1])


@torch.no_grad()
def most_curved_outputs(readout: Readout, sample: Tensor, count: int) -> list[int]:
    """Outputs x = s(u) of a sample (n_measurements,) with the largest |s''(u)|.

    The theory's Hessian norm is the largest over all outputs, and this factor decides where it is.
    """
    u = torch.linspace(0, 10, 1001, dtype=sample.dtype)
    with torch.enable_grad():
        shrunk = smooth_soft_threshold(u.requires_grad_(), 1.0)
        (slope,) = torch.autograd.grad(shrunk.sum(), u, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), u)
    place = torch.searchsorted(shrunk.detach(), readout.network(sample).abs())
    found: list[int] = curvature[place.clamp(max=len(u) - 1)].topk(count).indices.tolist()
    return found


@dataclass(frozen=True)
class Task:
    """Sparse recovery with measurements of unit mean square."""

    problem: SparseProblem

    @classmethod
    def make(
        cls,
        n_atoms: int,
        *,
        density: float,
        seed: int,
        n_measurements: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Task:
        """Make the task with half as many measurements as atoms, or with as many as given."""
        m = n_measurements or n_atoms // 2
        problem = make_sparse_problem(m, n_atoms, density=density, seed=seed, dtype=dtype)
        scale = (m / (density * n_atoms)) ** 0.5
        return cls(replace(problem, dictionary=problem.dictionary * scale))

    def sample(self, count: int, seed: int) -> SparseBatch:
        """Draw samples whose codes are not zero."""
        generator = torch.Generator().manual_seed(seed)
        batches, found = [], 0
        while found < count:
            batch = self.problem.sample(count, generator)
            keep = (batch.codes != 0).any(dim=1)
            batches.append(SparseBatch(batch.measurements[keep], batch.codes[keep]))
            found += int(keep.sum())
        return SparseBatch(
            torch.cat([batch.measurements for batch in batches])[:count],
            torch.cat([batch.codes for batch in batches])[:count],
        )
