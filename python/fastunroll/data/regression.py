"""A real regression table: the diabetes data that ship with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastunroll._checks import check_dtype, check_number
from fastunroll._optional import import_optional


@dataclass(frozen=True, eq=False)
class RegressionTable:
    """A regression problem: the target is about design @ coefficients.

    Attributes
    ----------
    design : Tensor
        A, ``(n_samples, n_features)``; its columns have zero mean and unit norm.
    target : Tensor
        b, ``(n_samples,)``, with zero mean and unit norm.
    feature_names : tuple of str
        Name of each column.
    """

    design: Tensor
    target: Tensor
    feature_names: tuple[str, ...]

    def split(
        self, test_fraction: float = 0.25, seed: int = 0
    ) -> tuple[RegressionTable, RegressionTable]:
        """Split the samples at random into a training and a test table.

        Both are centred and scaled by the means and norms of the training samples. So only the
        training table has columns of exactly zero mean and unit norm.

        Parameters
        ----------
        test_fraction : float
            Part of the samples in the test table, in (0, 1).
        seed : int
            Seed of the choice.

        Returns
        -------
        train, test : RegressionTable
            The two tables.

        Raises
        ------
        TypeError, ValueError
            If ``test_fraction`` is not as above, or leaves a table without samples or a training
            column without variation.
        """
        check_number("test_fraction", test_fraction, minimum=0, exclusive=True)
        n_test = round(test_fraction * len(self.target))
        if not 0 < n_test < len(self.target):
            raise ValueError(
                f"test_fraction must leave samples in both tables, got {test_fraction:g}"
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.target), generator=generator)
        test, train = order[:n_test], order[n_test:]
        design = _standardise(self.design, train)
        target = _standardise(self.target, train)
        return (
            RegressionTable(design[train], target[train], self.feature_names),
            RegressionTable(design[test], target[test], self.feature_names),
        )


def load_regression_table(
    degree: int = 1, *, dtype: torch.dtype = torch.float64
) -> RegressionTable:
    """Load the diabetes table: 442 patients, 10 features, disease progression after one year.

    Parameters
    ----------
    degree : {1, 2}
        2 adds the products of two features and the squares, as in the paper: 64 columns. The square
        of a feature with two values repeats that feature and is left out.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    RegressionTable
        The whole table.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    ImportError
        If scikit-learn is not installed.

    References
    ----------
    Efron, Hastie, Johnstone, Tibshirani, "Least angle regression", Annals of Statistics 32(2),
    2004.
    """
    if degree not in (1, 2):
        raise ValueError(f"degree must be 1 or 2, got {degree!r}")
    check_dtype("dtype", dtype)
    table = import_optional("sklearn.datasets").load_diabetes()
    polynomial = import_optional("sklearn.preprocessing").PolynomialFeatures(
        degree, include_bias=False
    )
    design = _standardise(torch.from_numpy(polynomial.fit_transform(table.data)))
    names = polynomial.get_feature_names_out(table.feature_names)
    repeats = (torch.tril(design.T @ design, diagonal=-1).abs() > 1 - 1e-9).any(dim=1)
    return RegressionTable(
        design[:, ~repeats].to(dtype),
        _standardise(torch.from_numpy(table.target)).to(dtype),
        tuple(str(name) for name, repeat in zip(names, repeats, strict=True) if not repeat),
    )


def _standardise(values: Tensor, samples: Tensor | slice = slice(None)) -> Tensor:
    """Centre and scale columns so that those of the given samples have zero mean and unit norm."""
    centred = values - values[samples].mean(dim=0)
    norms = centred[samples].norm(dim=0)
    if bool((norms == 0).any()):
        raise ValueError("test_fraction leaves a column that does not vary in the training table")
    standardised: Tensor = centred / norms
    return standardised
