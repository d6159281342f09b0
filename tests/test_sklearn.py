"""The estimators: scikit-learn's own checks, and that they learn, encode and decode."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from fastunroll.sklearn import UnrolledDictionaryLearning, UnrolledSparseCoder

Array = NDArray[np.floating]
CHECKED = [UnrolledSparseCoder(), UnrolledDictionaryLearning(n_steps=3)]


def checks() -> list[Any]:
    """Every check of scikit-learn, but for the one of array types other than NumPy's.

    It concerns estimators that claim to take them, and scikit-learn itself leaves it out unless
    SCIPY_ARRAY_API is set.
    """
    return [
        pytest.param(estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}")
        for estimator in CHECKED
        for estimator, check in estimator_checks_generator(estimator)
        if check.func.__name__ != "check_array_api_input"
    ]


@pytest.mark.parametrize(("estimator", "check"), checks())
def test_scikit_learn_check(estimator: Any, check: Any) -> None:
    check(estimator)


def samples(count: int = 400, dtype: type = np.float64) -> Array:
    """Samples of 10 atoms in 8 dimensions, with one or two non-zeros."""
    random = np.random.default_rng(0)
    atoms = random.standard_normal((10, 8))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = random.uniform(1, 2, (count, 10)) * random.choice([-1, 1], (count, 10))
    codes *= random.random((count, 10)) < 0.15
    return (codes @ atoms).astype(dtype)


def objective(x: Array, z: Array, atoms: Array, alpha: float) -> float:
    return float((0.5 * np.square(x - z @ atoms).sum(1) + alpha * np.abs(z).sum(1)).mean())


@pytest.mark.parametrize("positive", [False, True])
def test_codes_are_those_of_scikit_learns_lasso(positive: bool) -> None:
    x, atoms = samples(50), samples(30)[:12]
    atoms = atoms[np.abs(atoms).sum(axis=1) > 0] * 1.7  # any norm will do
    coder = UnrolledSparseCoder(atoms, alpha=0.2, n_layers=3000, positive_code=positive).fit(x)
    expected = sparse_encode(
        x, atoms, algorithm="lasso_cd", alpha=0.2, positive=positive, max_iter=20000
    )
    found = coder.transform(x)
    assert objective(x, found, atoms, 0.2) == pytest.approx(
        objective(x, expected, atoms, 0.2), rel=1e-4
    )
    assert (found.min() >= 0) == positive
    assert np.allclose(coder.inverse_transform(found), found @ atoms)
    assert coder.score(x) == pytest.approx(-objective(x, found, atoms, 0.2))


@pytest.mark.parametrize("gradient", ["dec", "ae-lasso", "ae-ls"])
def test_learning_lowers_the_objective(gradient: str) -> None:
    x = samples()
    options: dict[str, Any] = {"alpha": 0.1, "random_state": 0, "gradient": gradient}
    few = UnrolledDictionaryLearning(10, n_steps=1, **options).fit(x)
    many = UnrolledDictionaryLearning(10, n_steps=150, n_layers=30, **options).fit(x)
    assert many.score(x) > 0.85 * few.score(x)  # both are negative
    assert np.allclose(np.linalg.norm(many.components_, axis=1), 1)
    assert many.n_steps_ == 150


def test_same_seed_same_dictionary_and_dtype_is_kept() -> None:
    for dtype in (np.float32, np.float64):
        x = samples(dtype=dtype)
        first, again, other = (
            UnrolledDictionaryLearning(10, alpha=0.1, n_steps=5, random_state=seed).fit(x)
            for seed in (1, 1, 2)
        )
        assert np.array_equal(first.components_, again.components_)
        assert not np.array_equal(first.components_, other.components_)
        assert first.components_.dtype == first.transform(x).dtype == dtype


def test_partial_fit_goes_on() -> None:
    x = samples(600)
    learner = UnrolledDictionaryLearning(10, alpha=0.1, batch_size=100, random_state=0)
    learner.partial_fit(x[:250])
    assert learner.n_steps_ == 3
    before, copy = learner.components_.copy(), pickle.loads(pickle.dumps(learner))
    learner.partial_fit(x[250:255])  # fewer samples than atoms will do from now on
    assert learner.n_steps_ == 4
    assert not np.array_equal(before, learner.components_)
    copy.partial_fit(x[250:255])
    assert np.array_equal(copy.components_, learner.components_)
    learner.fit(x)
    assert learner.n_steps_ == learner.n_steps
    fresh = clone(learner).fit(x)
    assert np.array_equal(fresh.components_, learner.components_)


def test_n_jobs_is_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    before = torch.get_num_threads()
    for n_jobs, expected in ((None, [before]), (3, [3, before]), (-1, [os.cpu_count(), before])):
        asked.clear()
        UnrolledSparseCoder(n_jobs=n_jobs).fit(samples()).transform(samples(20))
        assert asked == expected


def test_pipeline_and_grid_search() -> None:
    x = samples(120)
    y = x[:, 0] > 0
    pipeline = make_pipeline(
        StandardScaler(),
        UnrolledDictionaryLearning(n_steps=3, n_layers=10, random_state=0),
        LogisticRegression(),
    )
    grid = {"unrolleddictionarylearning__alpha": [0.05, 0.2]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_score_ > 0.6
    names = search.best_estimator_[:-1].get_feature_names_out()
    assert list(names[:2]) == ["unrolleddictionarylearning0", "unrolleddictionarylearning1"]
    alone = UnrolledDictionaryLearning(alpha=0.1, n_steps=3, random_state=0)
    sizes = GridSearchCV(alone, {"n_components": [2, 12]}, cv=2).fit(x)
    assert sizes.best_params_ == {"n_components": 12}


def test_bad_input() -> None:
    x = samples(30)
    x[4, 2] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        UnrolledDictionaryLearning().fit(x)
    with pytest.raises(ValueError, match=r"at least n_atoms = 64 .* fewer atoms or start"):
        UnrolledDictionaryLearning(64).fit(samples(20))
    with pytest.raises(ValueError, match="got 0 of n_samples=9"):
        UnrolledDictionaryLearning().fit(np.zeros((9, 4)))
    assert UnrolledDictionaryLearning(64, init="random", n_steps=1).fit(samples(20))
    constant = UnrolledDictionaryLearning(3, n_steps=2).fit(np.ones((9, 4)))
    assert np.isfinite(constant.transform(np.zeros((2, 4)))).all()
    with pytest.raises(ValueError, match="'alpha' parameter"):
        UnrolledSparseCoder(alpha=-1.0).fit(samples(20))
    with pytest.raises(ValueError, match="dictionary must have n_features=8 columns"):
        UnrolledSparseCoder(np.ones((3, 5))).fit(samples(20))
    with pytest.raises(ValueError, match="dictionary has a row of zeros"):
        UnrolledSparseCoder(np.eye(9, 8)).fit(samples(20))
    with pytest.raises(ValueError, match="'n_jobs' parameter"):
        UnrolledSparseCoder(n_jobs=0).fit(samples(20))
    with pytest.raises(ValueError, match="X must have n_components=8 columns, got 3"):
        UnrolledSparseCoder().fit(samples(20)).inverse_transform(np.ones((2, 3)))
