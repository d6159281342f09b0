"""What the estimators share: encoding with an unrolled FISTA, decoding, threads, checks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, Options
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fastunroll.analysis import lipschitz_constant
from fastunroll.functional import unrolled_prox_gradient
from fastunroll.prepared import prepare
from fastunroll.solvers import lasso_objective
from fastunroll.solvers.fista import nesterov_momentum

Array = NDArray[np.floating]

_ENCODING_BATCH = 4096  # Samples encoded at once; bounds the memory beside the codes.
DTYPES = [np.float64, np.float32]

SHARED_CONSTRAINTS: dict[str, list[Any]] = {
    "alpha": [Interval(Real, 0, None, closed="neither")],
    "n_layers": [Interval(Integral, 1, None, closed="left")],
    "positive_code": ["boolean"],
    "n_jobs": [Interval(Integral, 1, None, closed="left"), Options(Integral, {-1}), None],
    "random_state": ["random_state"],
}


class CodingTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What both estimators share: encoding with an unrolled FISTA, and decoding."""

    components_: Array
    alpha: float
    n_layers: int
    positive_code: bool
    n_jobs: int | None
    random_state: Any

    def transform(self, X: Any) -> Array:
        """Encode samples.

        Parameters
        ----------
        X : (n_samples, n_features)
            Samples.

        Returns
        -------
        ndarray
            Codes (n_samples, n_components).

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If ``X`` does not fit, or has NaN or Inf.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=self.components_.dtype, reset=False)
        atoms = torch.from_numpy(self.components_.T.copy())
        step = 1.0 / lipschitz_constant(atoms)
        prepared = prepare(atoms)
        momentum = atoms.new_tensor(list(islice(nesterov_momentum(), self.n_layers)))

        def encode(samples: Tensor) -> Tensor:
            return unrolled_prox_gradient(
                samples,
                prepared,
                step=step,
                threshold=self.alpha * step,
                momentum=momentum,
                prox="nonnegative" if self.positive_code else "soft",
            ).codes

        with threads(self.n_jobs):
            parts = torch.from_numpy(np.array(X, order="C")).split(_ENCODING_BATCH)
            return torch.cat([encode(part) for part in parts]).numpy()

    def inverse_transform(self, X: Any) -> Array:
        """Decode codes.

        Parameters
        ----------
        X : (n_samples, n_components)
            Codes.

        Returns
        -------
        ndarray
            Samples (n_samples, n_features).

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If ``X`` has another number of columns, or NaN or Inf.
        """
        check_is_fitted(self)
        codes = check_array(X, dtype=self.components_.dtype)
        if codes.shape[1] != len(self.components_):
            raise ValueError(
                f"X must have n_components={len(self.components_)} columns, got {codes.shape[1]}"
            )
        return np.asarray(codes @ self.components_)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean over the samples of -(1/2 ||x - z components_||^2 + alpha ||z||_1).

        It compares dictionaries at one ``alpha``. To choose ``alpha``, score what comes after this
        step of a pipeline.

        Parameters
        ----------
        X : (n_samples, n_features)
            Samples.
        y : None
            Ignored.
        """
        codes = torch.from_numpy(self.transform(X))
        samples = torch.from_numpy(np.array(X, dtype=self.components_.dtype))
        atoms = torch.from_numpy(self.components_.T)
        return -float(lasso_objective(codes, samples, atoms, self.alpha).mean())

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _generator(self) -> torch.Generator:
        """Random numbers of ``random_state``."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return torch.Generator().manual_seed(int(seed))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


@contextmanager
def threads(n_jobs: int | None) -> Iterator[None]:
    """Run with a number of threads inside a ``with`` block."""
    before = torch.get_num_threads()
    if n_jobs:
        torch.set_num_threads((os.cpu_count() or 1) if n_jobs == -1 else n_jobs)
    try:
        yield
    finally:
        torch.set_num_threads(before)
