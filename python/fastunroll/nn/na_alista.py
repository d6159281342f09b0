r"""NA-ALISTA: ALISTA with steps and thresholds that a small recurrent network finds per sample.

One layer computes

    r_k = A x_k - b,   u_k = W^T r_k
    (g_k, th_k) = softplus(V_2 relu(V_1 c_k + d_1) + d_2),
        with h_k, c_k = LSTM(normalised (||r_k||_1, ||u_k||_1); h_{k-1}, c_{k-1})
    x_{k+1} = S_{th_k}(x_k - g_k u_k), with support selection

where W is the analytic weight of ALISTA. It learns the LSTM with its first state, and V and d: with
q hidden units, 5 q^2 + 21 q + 2 numbers, whatever the number of layers. Source: Behrens, Sauder,
Jung, "Neurally augmented ALISTA", 2021, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fastunroll._checks import check_positive_int, check_tensor
from fastunroll.analysis.analytic import analytic_weight
from fastunroll.data.synthetic import SparseProblem
from fastunroll.nn.iterated import IteratedNetwork
from fastunroll.nn.prox_gradient import checked_weight
from fastunroll.nn.support_selection import SupportSelection
from fastunroll.ops import reference

_FIRST_OUTPUTS = (1.0, 0.1)
"""Step and threshold that an untrained network is near to."""

_N_EXAMPLES = 1000

_SELECTION = SupportSelection()


class NAALISTA(IteratedNetwork):
    """NA-ALISTA: dictionary and weights that are kept, and a learned LSTM.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied.
    n_layers : int
        K.
    weight : (n_measurements, n_atoms), optional
        W, copied; `fastunroll.analysis.analytic.analytic_weight` by default.
    n_hidden : int
        q, the hidden units of the LSTM.
    support_selection : SupportSelection, optional
        The largest entries of a layer skip the shrinkage; None for none. By default, the usual
        counts of `SupportSelection`.
    measurements : (n_examples, n_measurements), optional
        Examples of b. Both inputs of the LSTM are shifted and scaled to mean 0 and standard
        deviation 1 over the first layer of these. By default, they come from codes with 10 %
        non-zeros of unit variance. (The paper's code takes the first batch it sees.)

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Notes
    -----
    The first weights of the LSTM are drawn from PyTorch's global generator.
    """

    no_program = "asks an LSTM for the step and the threshold of each sample"

    weight: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        weight: Tensor | None = None,
        n_hidden: int = 128,
        support_selection: SupportSelection | None = _SELECTION,
        measurements: Tensor | None = None,
    ) -> None:
        super().__init__(dictionary, support_selection)
        self._n_layers = check_positive_int("n_layers", n_layers)
        a = self.dictionary
        weight = analytic_weight(a) if weight is None else checked_weight(weight, a)
        self.register_buffer("weight", weight.detach().clone())
        mean, std = self._feature_statistics(measurements)
        self.register_buffer("feature_mean", mean)
        self.register_buffer("feature_std", std)
        like: dict[str, Any] = {"dtype": a.dtype, "device": a.device}
        n_hidden = check_positive_int("n_hidden", n_hidden)
        self.lstm = nn.LSTMCell(2, n_hidden, **like)
        self.first_state = nn.Parameter(torch.randn(2, n_hidden, **like))
        self.hidden = nn.Linear(n_hidden, n_hidden, **like)
        self.output = nn.Linear(n_hidden, 2, **like)
        with torch.no_grad():
            self.output.bias.copy_(torch.tensor(_FIRST_OUTPUTS).expm1().log())

    @property
    def n_layers(self) -> int:
        """Number of layers K."""
        return self._n_layers

    def _codes(self, b: Tensor, n_layers: int) -> Iterator[Tensor]:
        for x, _, _ in self._layers(b, n_layers):
            yield x

    def adapted(self, b: Tensor, *, n_layers: int | None = None) -> tuple[Tensor, Tensor]:
        """Steps g_k and thresholds th_k that the network finds: each (n_layers, batch).

        ``b`` is (batch, n_measurements).
        """
        b = check_tensor("b", b, (2,))
        layers = list(self._layers(b, self.n_layers if n_layers is None else n_layers))
        return (
            torch.stack([step[:, 0] for _, step, _ in layers]),
            torch.stack([threshold[:, 0] for _, _, threshold in layers]),
        )

    def _layers(self, b: Tensor, n_layers: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield code (batch, n_atoms), step (batch, 1) and threshold (batch, 1) of every layer."""
        x = b.new_zeros(len(b), self.dictionary.shape[1])
        state = [row.expand(len(b), -1) for row in self.first_state]
        for bypass in self._bypass(range(n_layers)):
            residual = x @ self.dictionary.mT - b
            direction = residual @ self.weight
            features = (_l1_norms(residual, direction) - self.feature_mean) / self.feature_std
            state = self.lstm(features, state)
            outputs = softplus(self.output(self.hidden(state[1]).relu()))
            step, threshold = outputs[:, :1], outputs[:, 1:]
            x = reference.prox(x - step * direction, threshold, "soft", bypass)
            yield x, step, threshold

    @torch.no_grad()
    def _feature_statistics(self, measurements: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (2,) of the inputs of the LSTM in the first layer."""
        if measurements is None:
            generator = torch.Generator().manual_seed(0)
            measurements = SparseProblem(self.dictionary).sample(_N_EXAMPLES, generator)[0]
        b = check_tensor("measurements", measurements, (2,))
        m = self.dictionary.shape[0]
        if b.shape[0] < 2 or b.shape[1] != m:
            raise ValueError(
                f"measurements must be (n_examples, {m}) with at least 2 examples, "
                f"got shape {tuple(b.shape)}"
            )
        features = _l1_norms(b, b @ self.weight)
        std = features.std(dim=0)
        if not bool((std > 0).all() and torch.isfinite(std).all()):
            raise ValueError("measurements must be finite and of different norms")
        return features.mean(dim=0), std

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            "support_selection": None,
            **super().config(),
            "n_hidden": self.lstm.hidden_size,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> NAALISTA:
        """Build the network that `config` and a ``state_dict`` describe."""
        return super().from_config({**config, "weight": state["weight"]}, state)


def _l1_norms(residual: Tensor, direction: Tensor) -> Tensor:
    """||r||_1 and ||u||_1 side by side: (batch, 2)."""
    return torch.stack([residual.abs().sum(dim=1), direction.abs().sum(dim=1)], dim=1)
