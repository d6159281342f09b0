r"""Safeguarded networks: a learned step is kept only if a residual says that it is safe.

With T(x) = S_{lambda s}(x - s A^T (A x - b)), s = 1 / L, the step of ISTA, the residual of codes x
is e(x) = ||x - T(x)||_2; it is 0 exactly at the solutions of the LASSO. Layer k computes the
learned step y = layer_k(x_k), and for every sample

    x_{k+1} = y       and  mu_{k+1} = theta e(y) + (1 - theta) mu_k    if e(y) <= alpha mu_k
    x_{k+1} = T(x_k)  and  mu_{k+1} = mu_k                             otherwise

from mu_0 = e(x_0). Layers after the last learned one are steps of ISTA. Source: Heaton, Chen, Wang,
Yin, "Safeguarded learned convex optimization", 2020 (the moving-average test).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastunroll._checks import check_dictionary, check_number, check_positive_int, check_tensor
from fastunroll.functional import UnrolledResult, unrolled_prox_gradient
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.nn.network import UnrolledNetwork, objectives
from fastunroll.nn.prox_gradient import ProxGradientNetwork, first_step


class SafeguardedNetwork(UnrolledNetwork):
    """A layered network with a safeguard: in the limit, it solves the LASSO as ISTA does.

    e never exceeds its value at x_0, whatever the network does: T does not raise it, and a learned
    step is kept only below alpha mu_k. So non-finite codes are never kept, and F(x_k) comes down to
    the minimum of the LASSO as k grows beyond the learned layers. What the safeguard costs is one
    step of ISTA per layer, and accuracy where the true codes are far from the solution of the
    LASSO: choose a small ``lam``.

    The networks of the fused recursion take each step from x_k. Networks whose layers hand on more
    than the code, such as LAMP, cannot start from another code: there y is the k-th code of the
    network on its own, which the safeguard accepts or not.

    Parameters
    ----------
    network : LayeredNetwork
        The network, with one ``dictionary`` (n_measurements, n_atoms); not copied.
    lam : float
        lambda of the LASSO, positive.
    ratio : float
        alpha, in (0, 1).
    smoothing : float
        theta, in (0, 1].

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    no_program = "looks at the outcome of every layer before it takes it"

    def __init__(
        self,
        network: LayeredNetwork,
        *,
        lam: float = 0.1,
        ratio: float = 0.99,
        smoothing: float = 0.25,
    ) -> None:
        super().__init__()
        if not isinstance(network, LayeredNetwork):
            raise TypeError(f"network must be a LayeredNetwork, got {type(network).__name__}")
        step = first_step(check_dictionary("network.dictionary", network.dictionary))
        self.network = network
        self.lam = check_number("lam", lam, minimum=0.0, exclusive=True)
        self.ratio = check_number("ratio", ratio, minimum=0.0, exclusive=True)
        if self.ratio >= 1:
            raise ValueError(f"ratio must be less than 1, got {ratio:g}")
        self.smoothing = check_number("smoothing", smoothing, minimum=0.0, exclusive=True)
        if self.smoothing > 1:
            raise ValueError(f"smoothing must be at most 1, got {smoothing:g}")
        self._step = step

    @property
    def dictionary(self) -> Tensor:
        """A: (n_measurements, n_atoms)."""
        return self.network.dictionary

    @property
    def n_layers(self) -> int:
        """Number of learned layers K."""
        return self.network.n_layers

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
        n_layers: int | None = None,
    ) -> UnrolledResult:
        """Run ``n_layers`` layers: as many as were learned by default, but more are possible.

        See `fastunroll.unrolled_prox_gradient` for the other arguments.
        """
        count = self.n_layers if n_layers is None else check_positive_int("n_layers", n_layers)
        flat = check_tensor("b", b, (1, 2)).dim() == 1
        rows = b[None] if flat else b
        every, _ = self._guarded(rows, min(count, self.n_layers))
        if count > self.n_layers:
            tail = self._ista(rows, every[-1], count - self.n_layers)
            every += tail[1:].unbind()
        stacked = torch.stack(every)
        if flat:
            stacked = stacked[:, 0]
        objective = objectives(stacked, b, self.dictionary, objective_weight)
        return UnrolledResult(stacked[-1], objective, stacked if iterates else None)

    @torch.no_grad()
    def kept_steps(self, b: Tensor) -> Tensor:
        """Which learned steps are kept: (n_layers, batch) or (n_layers,), bool."""
        flat = check_tensor("b", b, (1, 2)).dim() == 1
        _, kept = self._guarded(b[None] if flat else b, self.n_layers)
        return torch.stack(kept)[:, 0] if flat else torch.stack(kept)

    def _guarded(self, b: Tensor, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Iterates x_0, ..., x_count and the decisions of the first ``count`` layers."""
        x = b.new_zeros(len(b), self.dictionary.shape[1])
        fallback = self._ista(b, x)[-1]
        bound = _distance(fallback, x)
        own = None
        if not isinstance(self.network, ProxGradientNetwork):
            own = self.network.unroll(b, iterates=True, n_layers=count).iterates
        every, kept = [x], []
        for layer in range(count):
            learned = own[layer + 1] if own is not None else self._learned(b, layer, x)
            after = self._ista(b, learned)[-1]
            residual = _distance(after, learned)
            keep = residual <= self.ratio * bound
            mean = self.smoothing * residual + (1 - self.smoothing) * bound
            bound = torch.where(keep, mean, bound)
            x = torch.where(keep[:, None], learned, fallback)
            fallback = after if bool(keep.all()) else self._ista(b, x)[-1]
            every.append(x)
            kept.append(keep)
        return every, kept

    def _learned(self, b: Tensor, layer: int, codes: Tensor) -> Tensor:
        """One learned layer."""
        assert isinstance(self.network, ProxGradientNetwork)
        return self.network._run(b, range(layer, layer + 1), codes, None, False).codes

    def _ista(self, b: Tensor, codes: Tensor, count: int = 1) -> Tensor:
        """Codes and what ``count`` steps of ISTA make of them: (count + 1, batch, n_atoms)."""
        result = unrolled_prox_gradient(
            b,
            self._prepare(self.dictionary),
            step=self._step,
            threshold=self.lam * self._step,
            n_layers=count,
            initial=codes,
            iterates=True,
        )
        assert result.iterates is not None
        return result.iterates

    def config(self) -> dict[str, Any]:
        """Class and configuration of the network, and the constructor's numbers."""
        return {
            "network": type(self.network).__name__,
            "network_config": self.network.config(),
            "lam": self.lam,
            "ratio": self.ratio,
            "smoothing": self.smoothing,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> SafeguardedNetwork:
        """Build the network that `config` and a ``state_dict`` describe."""
        from fastunroll.nn import MODELS  # it lists this class, too

        options = dict(config)
        kind, inner = MODELS[options.pop("network")], options.pop("network_config")
        own = {name.removeprefix("network."): tensor for name, tensor in state.items()}
        return cls(kind.from_config(inner, own), **options)  # type: ignore[arg-type]


@torch.no_grad()
def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Distance of every sample's codes: (batch,)."""
    distance: Tensor = torch.linalg.vector_norm(ours - theirs, dim=1)
    return distance
