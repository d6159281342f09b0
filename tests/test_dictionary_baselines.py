"""Alternating minimisation, NOODL, adapters of other packages, and errors of dictionaries."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, dictionary
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll.dictionary import (
    NOODL,
    alternating_minimisation,
    code_error,
    dictionary_error,
    learn_with_sklearn,
    learn_with_spams,
    match_atoms,
)
from fastunroll.dictionary.alternating import update_dictionary
from fastunroll.solvers import ista, lasso_objective

M, N, LAM = 12, 16, 0.1


def sample(count: int = 300, seed: int = 0, truth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Samples and their codes of two non-zeros in +-[1, 2]."""
    truth = dictionary(M, N) if truth is None else truth
    generator = torch.Generator().manual_seed(seed)
    codes = torch.zeros(count, truth.shape[1], dtype=torch.float64)
    support = torch.rand(codes.shape, generator=generator).topk(2, dim=1).indices
    values = 1 + torch.rand(count, 2, generator=generator, dtype=torch.float64)
    signs = torch.randn(count, 2, generator=generator, dtype=torch.float64).sign()
    codes.scatter_(1, support, values * signs)
    return codes @ truth.mT, codes


def near(size: float, seed: int = 9) -> Tensor:
    """A dictionary whose atoms are at about this distance from the true ones."""
    return normalize(dictionary(M, N) + size * dictionary(M, N, seed=seed), dim=0)


# Alternating minimisation


def test_the_dictionary_step_is_that_of_its_formula() -> None:
    x, z = (t.numpy() for t in sample(40))
    z[:, 5] = 0.0
    expected = near(0.3).numpy().copy()
    for j in range(N):
        if z[:, j].any():
            others = x - z @ expected.T + np.outer(z[:, j], expected[:, j])
            atom = others.T @ z[:, j] / (z[:, j] @ z[:, j])
            expected[:, j] = atom / max(1.0, np.linalg.norm(atom))
    found = near(0.3).clone()
    codes = torch.from_numpy(z)
    update_dictionary(found, codes.mT @ codes, torch.from_numpy(x).mT @ codes)
    assert_close(found, torch.from_numpy(expected), 1e-12, "dictionary")
    assert_close(found[:, 5], near(0.3)[:, 5], 0.0, "atom without samples")


def test_alternating_minimisation_descends_to_a_better_dictionary() -> None:
    samples, _ = sample()
    start = near(0.4)
    result = alternating_minimisation(samples, start, LAM, n_iterations=15)
    assert bool((result.objective.diff() <= 1e-6 * result.objective[0]).all())
    assert float(result.dictionary.norm(dim=0).max()) <= 1 + 1e-12
    solved = ista(samples, result.dictionary, LAM, tolerance=1e-6, max_iterations=5000).codes
    best = lasso_objective(solved, samples, result.dictionary, LAM).mean()
    assert float(result.objective[-1]) == pytest.approx(float(best), rel=1e-2)
    truth = dictionary(M, N)
    assert dictionary_error(result.dictionary, truth) < 0.5 * dictionary_error(start, truth)


def test_alternating_minimisation_refuses_bad_samples() -> None:
    samples, _ = sample(20)
    samples[3, 1] = torch.nan
    with pytest.raises(ValueError, match="contains NaN or Inf"):
        alternating_minimisation(samples, near(0.4), LAM)


# NOODL


def test_noodl_is_its_formula() -> None:
    x = sample(30)[0].numpy()
    learner = NOODL(near(0.1), dictionary_step=3.0, n_layers=6, first_threshold=0.4)
    d = near(0.1).numpy()
    z = x @ d
    z = z * (np.abs(z) > 0.4)
    for _ in range(6):
        z = z - 0.2 * (z @ d.T - x) @ d
        z = z * (np.abs(z) > 0.1)
    codes = learner.update(torch.from_numpy(x))
    assert_close(codes, torch.from_numpy(z), 1e-12, "codes")
    moved = d - 3.0 / 30 * (z @ d.T - x).T @ np.sign(z)
    expected = torch.from_numpy(moved / np.linalg.norm(moved, axis=0))
    assert_close(learner.dictionary, expected, 1e-12, "dictionary")


def test_noodl_converges_to_the_true_dictionary() -> None:
    truth = dictionary(64, 80)
    start = normalize(truth + 0.15 * dictionary(64, 80, seed=9), dim=0)
    kept = start.clone()
    learner = NOODL(start, dictionary_step=15.0, n_layers=50)
    for seed in range(60):
        learner.update(sample(200, seed, truth)[0])
    errors = [dictionary_error(d, truth, match=False) for d in (learner.dictionary, start)]
    assert errors[0] < 0.01 * errors[1]
    assert torch.equal(start, kept), "the start was changed"


def test_noodl_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="dictionary_step must be greater than 0"):
        NOODL(near(0.1), dictionary_step=0.0)
    learner = NOODL(near(0.1), dictionary_step=1.0)
    with pytest.raises(ValueError, match="samples must have shape"):
        learner.update(torch.zeros(3, M + 1, dtype=torch.float64))
    with pytest.raises(ValueError, match="samples contains NaN or Inf"):
        learner.update(torch.full((3, M), torch.nan, dtype=torch.float64))


# Adapters


def mean_objective(samples: Tensor, learned: Tensor) -> float:
    codes = ista(samples, learned, LAM, tolerance=1e-5, max_iterations=3000).codes
    return float(lasso_objective(codes, samples, learned, LAM).mean())


@pytest.mark.parametrize("method", ["cd", "lars"])
def test_scikit_learn_learns_in_our_conventions(method: str) -> None:
    samples, _ = sample()
    learned = learn_with_sklearn(
        samples, N, LAM, initial=near(0.5), n_epochs=5, batch_size=50, method=method
    )
    assert learned.shape == (M, N)
    assert learned.dtype == samples.dtype
    assert float(learned.norm(dim=0).max()) <= 1 + 1e-9
    assert mean_objective(samples, learned) < 0.95 * mean_objective(samples, near(0.5))


def test_spams_gets_and_gives_our_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def train(samples: Any, **options: Any) -> Any:
        seen.update(samples=samples, **options)
        return np.asfortranarray(options["D"])

    module = ModuleType("spams")
    module.trainDL = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spams", module)
    samples, _ = sample(100)
    learned = learn_with_spams(samples, N, LAM, initial=near(0.5), n_epochs=2, batch_size=30)
    assert_close(learned, near(0.5), 0.0, "dictionary")
    assert np.array_equal(seen["samples"], samples.numpy().T)
    assert seen["samples"].flags.f_contiguous
    assert (seen["K"], seen["lambda1"], seen["mode"], seen["iter"]) == (N, LAM, 2, 8)


def test_spams_really_learns() -> None:
    pytest.importorskip("spams", reason="SPAMS is not installed")
    samples, _ = sample()
    learned = learn_with_spams(samples, N, LAM, initial=near(0.5), n_epochs=5, batch_size=50)
    assert mean_objective(samples, learned) < 0.95 * mean_objective(samples, near(0.5))


def test_without_spams_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spams", None)
    with pytest.raises(ImportError, match=r"pip install 'fastunroll\[spams\]'"):
        learn_with_spams(sample(20)[0], N, LAM)


def test_adapters_refuse_bad_input() -> None:
    samples, _ = sample(20)
    samples[0, 0] = torch.inf
    with pytest.raises(ValueError, match="samples must not be empty and hold finite numbers"):
        learn_with_sklearn(samples, N, LAM)
    with pytest.raises(ValueError, match="lam must be greater than 0"):
        learn_with_sklearn(sample(20)[0], N, 0.0)


# Errors of dictionaries and codes


def test_matching_undoes_a_permutation_with_signs() -> None:
    truth, (samples, codes) = dictionary(M, N), sample(20)
    generator = torch.Generator().manual_seed(2)
    order = torch.randperm(N, generator=generator)
    signs = torch.randn(N, generator=generator, dtype=torch.float64).sign()
    mixed = (truth * signs)[:, order]
    match = match_atoms(mixed, truth)
    assert torch.equal(match.apply(mixed), truth)
    assert dictionary_error(mixed, truth) == 0.0
    assert dictionary_error(mixed, truth, match=False) > 0.5
    mixed_codes = (codes * signs)[:, order]
    assert torch.allclose(mixed_codes @ mixed.mT, samples)
    assert code_error(mixed_codes, codes, match) == 0.0
    assert code_error(mixed_codes, codes) > 0.5


def test_the_match_is_one_to_one_and_the_best() -> None:
    """Atom 0 is closest to both true atoms; the sum of |cosine| decides."""
    truth = torch.eye(2, dtype=torch.float64)
    learned = normalize(torch.tensor([[0.8, 1.0], [0.7, -0.1]], dtype=torch.float64), dim=0)
    assert match_atoms(learned, truth).order.tolist() == [1, 0]


def test_relative_errors_are_their_formula() -> None:
    truth, other = dictionary(M, N), near(0.2)
    expected = np.linalg.norm(other.numpy() - truth.numpy()) / np.linalg.norm(truth.numpy())
    assert dictionary_error(other, truth, match=False) == pytest.approx(expected, rel=1e-12)
    codes = sample(20)[1]
    assert code_error(1.5 * codes, codes) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="target must hold a code that is not zero"):
        code_error(codes, torch.zeros_like(codes))
    with pytest.raises(ValueError, match="dictionary must have shape"):
        dictionary_error(truth[:, :3], truth)
