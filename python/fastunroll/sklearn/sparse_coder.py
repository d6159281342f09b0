"""Sparse codes for a given dictionary."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from fastunroll.dictionary.initial import initial_dictionary
from fastunroll.sklearn.transformer import DTYPES, SHARED_CONSTRAINTS, CodingTransformer


class UnrolledSparseCoder(CodingTransformer):
    """Sparse codes for a given dictionary: the lasso, by a fixed number of FISTA layers.

    Parameters
    ----------
    dictionary : (n_components, n_features), optional
        Atoms in rows. Without one, `fit` draws samples that are not zero, as many as there are
        features if it can, and scales them to norm 1.
    alpha : float
        Weight of the l1 norm.
    n_layers : int
        Iterations of FISTA.
    positive_code : bool
        Whether codes may not be negative.
    n_jobs : int, optional
        Threads; None leaves PyTorch's number as it is and -1 takes all processors.
    random_state : int, RandomState or None
        Which samples to draw.

    Attributes
    ----------
    components_ : (n_components, n_features)
        Atoms.
    n_features_in_ : int
        Number of features.

    Examples
    --------
    >>> codes = UnrolledSparseCoder(atoms, alpha=0.1).fit(X).transform(X)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **SHARED_CONSTRAINTS,
        "dictionary": ["array-like", None],
    }

    def __init__(
        self,
        dictionary: Any = None,
        *,
        alpha: float = 1.0,
        n_layers: int = 100,
        positive_code: bool = False,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.dictionary = dictionary
        self.alpha = alpha
        self.n_layers = n_layers
        self.positive_code = positive_code
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> UnrolledSparseCoder:
        """Check the parameters and take the dictionary.

        Parameters
        ----------
        X : (n_samples, n_features)
            Samples.
        y : None
            Ignored.

        Raises
        ------
        ValueError
            If ``X`` or the dictionary do not fit.
        """
        self._validate_params()
        X = validate_data(self, X, dtype=DTYPES)
        if self.dictionary is None:
            samples = torch.from_numpy(np.array(X))
            count = max(1, min(X.shape[1], int(samples.any(dim=1).sum())))
            self.components_ = initial_dictionary(samples, count, self._generator()).numpy().T
        else:
            self.components_ = check_array(self.dictionary, dtype=X.dtype, copy=True)
            if self.components_.shape[1] != X.shape[1]:
                raise ValueError(
                    f"dictionary must have n_features={X.shape[1]} columns, "
                    f"got shape {self.components_.shape}"
                )
            if not self.components_.any(axis=1).all():
                raise ValueError("dictionary has a row of zeros; every atom must be non-zero")
        return self
