"""A dictionary learned with PUDLE."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data
from torch import Tensor

from fastunroll.dictionary.initial import INITIAL, initial_dictionary
from fastunroll.dictionary.pudle import GRADIENTS, PUDLE
from fastunroll.sklearn.transformer import DTYPES, SHARED_CONSTRAINTS, CodingTransformer, threads


class UnrolledDictionaryLearning(CodingTransformer):
    """Learn a dictionary with PUDLE; encode with an unrolled FISTA.

    Atoms have norm 1. The learning is Adam on mini-batches; in `fit` the learning rate falls
    linearly to zero.

    Parameters
    ----------
    n_components : int, optional
        Number of atoms; the number of features by default.
    alpha : float
        Weight of the l1 norm.
    n_steps : int
        Steps of `fit`.
    batch_size : int
        Samples of a step.
    learning_rate : float
        Learning rate of Adam; entries of atoms move by about so much in a step.
    gradient : {"dec", "ae-lasso", "ae-ls"}
        See `fastunroll.dictionary.PUDLE`. With as many layers as here, the first two agree, and
        ``"dec"`` is much cheaper; ``"ae-ls"`` looks for atoms that rebuild the samples best.
    n_layers : int
        Iterations of FISTA, in learning and encoding.
    init : {"data", "random", "dct"}
        First dictionary, see `fastunroll.dictionary.initial_dictionary`.
    positive_code : bool
        Whether codes may not be negative.
    n_jobs : int, optional
        Threads; None leaves PyTorch's number as it is and -1 takes all processors.
    random_state : int, RandomState or None
        Choice of the first atoms and order of the samples.

    Attributes
    ----------
    components_ : (n_components, n_features)
        Atoms.
    n_steps_ : int
        Steps taken so far.
    n_features_in_ : int
        Number of features.

    Examples
    --------
    >>> learner = UnrolledDictionaryLearning(256, alpha=0.1, random_state=0).fit(patches)
    >>> codes = learner.transform(patches)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SHARED_CONSTRAINTS,
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "gradient": [StrOptions(set(GRADIENTS))],
        "init": [StrOptions(set(INITIAL))],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        alpha: float = 1.0,
        n_steps: int = 400,
        batch_size: int = 256,
        learning_rate: float = 0.03,
        gradient: str = "dec",
        n_layers: int = 100,
        init: str = "data",
        positive_code: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.gradient = gradient
        self.n_layers = n_layers
        self.init = init
        self.positive_code = positive_code
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> UnrolledDictionaryLearning:
        """Learn a dictionary from scratch.

        Parameters
        ----------
        X : (n_samples, n_features)
            Samples.
        y : None
            Ignored.

        Raises
        ------
        ValueError
            If a parameter or ``X`` does not fit; with ``init="data"`` also if ``X`` has fewer
            samples that are not zero than there are atoms.
        """
        samples = self._start(X)
        rates = np.linspace(self.learning_rate, 0.0, self.n_steps, endpoint=False)
        self._learn(_shuffled(samples, self.batch_size, self._random), rates)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> UnrolledDictionaryLearning:
        """Go on learning with one pass over some samples, at the full learning rate.

        Parameters
        ----------
        X : (n_samples, n_features)
            Samples.
        y : None
            Ignored.

        Raises
        ------
        ValueError
            As `fit`; the condition on the number of samples concerns the first call.
        """
        if hasattr(self, "components_"):
            self._validate_params()
            X = validate_data(self, X, dtype=self.components_.dtype, reset=False)
            samples = torch.from_numpy(np.array(X))
        else:
            samples = self._start(X)
        n_batches = -(-len(samples) // self.batch_size)
        rates = np.full(n_batches, self.learning_rate)
        self._learn(_shuffled(samples, self.batch_size, self._random), rates)
        return self

    def _start(self, X: Any) -> Tensor:
        """Check everything, make the first dictionary and return the samples."""
        self._validate_params()
        X = validate_data(self, X, dtype=DTYPES)
        samples = torch.from_numpy(np.array(X))
        n_atoms = X.shape[1] if self.n_components is None else int(self.n_components)
        self._random = self._generator()
        self._network = PUDLE(
            initial_dictionary(samples, n_atoms, self._random, kind=self.init),
            int(self.n_layers),
            lam=self.alpha,
            gradient=self.gradient,
            prox="nonnegative" if self.positive_code else "soft",
            accelerated=True,
            constraint="normalised",
        )
        self._optimizer = torch.optim.Adam(self._network.parameters(), fused=True)
        self.n_steps_ = 0
        return samples

    def _learn(self, batches: Iterator[Tensor], rates: NDArray[np.floating]) -> None:
        """Take one step for each learning rate."""
        with threads(self.n_jobs), torch.enable_grad():
            for rate, batch in zip(rates, batches, strict=False):
                self._optimizer.param_groups[0]["lr"] = float(rate)
                self._optimizer.zero_grad()
                torch.autograd.backward(self._network.loss(batch))
                self._optimizer.step()
                self._network.project()
        self.n_steps_ += len(rates)
        self.components_ = self._network.dictionary.detach().numpy().T.copy()


def _shuffled(samples: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of the samples in random order, again and again."""
    while True:
        for rows in torch.randperm(len(samples), generator=generator).split(batch_size):
            yield samples[rows]
