"""Synthetic problems and the regression table."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastunroll.data import load_regression_table, make_sparse_problem


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSynthetic:
    def test_dictionary(self):
        problem = make_sparse_problem(80, 160, seed=3, dtype=torch.float64)
        assert problem.dictionary.shape == (80, 160)
        torch.testing.assert_close(
            problem.dictionary.norm(dim=0), torch.ones(160, dtype=torch.float64)
        )
        # Entries are about N(0, 1/m).
        assert problem.dictionary.std().item() == pytest.approx(80**-0.5, rel=0.02)

    def test_equal_seeds_give_equal_results(self):
        problems = [make_sparse_problem(20, 40, snr_db=20.0, seed=5) for _ in range(2)]
        batches = [problem.sample(6, seeded(1)) for problem in problems]
        assert torch.equal(problems[0].dictionary, problems[1].dictionary)
        assert torch.equal(batches[0].codes, batches[1].codes)
        assert torch.equal(batches[0].measurements, batches[1].measurements)
        assert not torch.equal(
            problems[0].dictionary, make_sparse_problem(20, 40, seed=6).dictionary
        )
        assert not torch.equal(batches[0].codes, problems[0].sample(6, seeded(2)).codes)

    def test_the_global_generator_is_left_alone(self):
        before = torch.random.get_rng_state()
        make_sparse_problem(20, 40, snr_db=20.0).sample(4, seeded())
        assert torch.equal(before, torch.random.get_rng_state())

    def test_dtypes_share_the_dictionary(self):
        single, double = (
            make_sparse_problem(20, 40, dtype=d).dictionary for d in (torch.float32, torch.float64)
        )
        assert torch.equal(single, double.float())

    def test_codes_are_bernoulli_gauss(self):
        problem = make_sparse_problem(20, 100, density=0.3, amplitude_std=2.0)
        codes = problem.sample(2000, seeded()).codes
        non_zeros = codes[codes != 0]
        assert non_zeros.numel() / codes.numel() == pytest.approx(0.3, abs=0.005)
        assert non_zeros.std().item() == pytest.approx(2.0, rel=0.02)
        assert non_zeros.mean().abs() < 0.02
        assert (non_zeros.abs() < 2.0).double().mean().item() == pytest.approx(0.6827, abs=0.01)

    def test_without_noise_measurements_are_exact(self):
        problem = make_sparse_problem(20, 40, dtype=torch.float64)
        measurements, codes = problem.sample(5, seeded())
        expected = codes.numpy() @ problem.dictionary.numpy().T
        np.testing.assert_allclose(measurements.numpy(), expected, atol=1e-12)

    @pytest.mark.parametrize("snr_db", [5.0, 20.0, 40.0])
    def test_snr(self, snr_db):
        problem = make_sparse_problem(250, 500, snr_db=snr_db, dtype=torch.float64)
        measurements, codes = problem.sample(200, seeded())
        clean = (codes @ problem.dictionary.T).numpy()
        noise = measurements.numpy() - clean
        realised = 20 * np.log10(clean.std(axis=1) / noise.std(axis=1))
        assert realised.mean() == pytest.approx(snr_db, abs=0.1)
        # Per sample, not only over the batch: each one is within a few standard errors.
        assert np.abs(realised - snr_db).max() < 2

    def test_samples_without_non_zeros_get_no_noise(self):
        batch = make_sparse_problem(20, 40, density=0.0, snr_db=10.0).sample(3, seeded())
        assert not batch.codes.any()
        assert not batch.measurements.any()

    def test_one_measurement_has_no_spread_and_no_noise(self):
        problem = make_sparse_problem(1, 8, density=1.0, snr_db=10.0)
        measurements, codes = problem.sample(3, seeded())
        torch.testing.assert_close(measurements, codes @ problem.dictionary.T)

    def test_full_density(self):
        assert make_sparse_problem(20, 40, density=1.0).sample(3, seeded()).codes.all()

    @pytest.mark.parametrize("shape", [(50, 100), (100, 50)])
    def test_condition_number(self, shape):
        def condition(kappa: float | None) -> float:
            problem = make_sparse_problem(*shape, condition_number=kappa, dtype=torch.float64)
            norms = problem.dictionary.norm(dim=0)
            torch.testing.assert_close(norms, torch.ones_like(norms))
            return float(np.linalg.cond(problem.dictionary.numpy()))

        # Unit columns move the number, but by far less than the steps between these.
        assert condition(1.0) < 1.6
        assert condition(5.0) == pytest.approx(5, rel=0.25)
        assert condition(50.0) == pytest.approx(50, rel=0.25)

    def test_singular_values_are_log_spaced(self):
        dictionary = make_sparse_problem(
            200, 400, condition_number=100.0, dtype=torch.float64
        ).dictionary
        logs = torch.linalg.svdvals(dictionary).log10()
        line = torch.linspace(float(logs[0]), float(logs[-1]), 200, dtype=torch.float64)
        assert (logs - line).abs().max() < 0.05

    def test_replace_makes_a_mismatched_problem(self):
        problem = make_sparse_problem(20, 40)
        other = replace(problem, density=0.5, snr_db=20.0)
        assert other.dictionary is problem.dictionary
        assert other.sample(50, seeded()).codes.count_nonzero() > 700
        with pytest.raises(ValueError, match="density must be at most 1"):
            replace(problem, density=1.5)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"n_measurements": 0}, ValueError, "n_measurements must be at least 1"),
            ({"n_atoms": 2.5}, TypeError, "n_atoms must be an int"),
            ({"density": -0.1}, ValueError, "density must be at least 0"),
            ({"snr_db": float("nan")}, ValueError, "snr_db must be finite"),
            ({"amplitude_std": 0}, ValueError, "amplitude_std must be greater than 0"),
            ({"condition_number": 0.5}, ValueError, "condition_number must be at least 1"),
            ({"dtype": torch.float16}, TypeError, "dtype must be float32 or float64"),
        ],
    )
    def test_bad_input(self, arguments, error, message):
        with pytest.raises(error, match=message):
            make_sparse_problem(**{"n_measurements": 4, "n_atoms": 8, **arguments})

    def test_bad_sample(self):
        problem = make_sparse_problem(4, 8)
        with pytest.raises(ValueError, match="batch must be at least 1"):
            problem.sample(0, seeded())
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
            problem.sample(2, 0)


def test_import_is_light():
    code = (
        "import sys, fastunroll.data, fastunroll.metrics; "
        "print([m for m in ('skimage', 'sklearn', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


class TestRegressionTable:
    @pytest.mark.parametrize(("degree", "n_features"), [(1, 10), (2, 64)])
    def test_columns(self, degree, n_features):
        table = load_regression_table(degree)
        assert table.design.shape == (442, n_features)
        assert len(table.feature_names) == len(set(table.feature_names)) == n_features
        assert table.design.mean(dim=0).abs().max() < 1e-15
        torch.testing.assert_close(
            table.design.norm(dim=0), torch.ones(n_features, dtype=torch.float64)
        )
        assert table.target.mean().abs() < 1e-15
        assert table.target.norm().item() == pytest.approx(1)
        assert np.linalg.matrix_rank(table.design.numpy()) == n_features

    def test_known_fit(self):
        table = load_regression_table()
        fit = np.linalg.lstsq(table.design.numpy(), table.target.numpy())[1].item()
        assert 1 - fit == pytest.approx(0.5177, abs=1e-4)  # R^2 of Efron et al.'s table.

    def test_names(self):
        table = load_regression_table(2)
        column = table.design[:, table.feature_names.index("age bmi")]
        age, bmi = (table.design[:, table.feature_names.index(name)] for name in ("age", "bmi"))
        product = age * bmi - (age * bmi).mean()
        torch.testing.assert_close(column, product / product.norm())
        assert "sex^2" not in table.feature_names
        assert load_regression_table(dtype=torch.float32).design.dtype == torch.float32

    def test_split(self):
        table = load_regression_table()
        train, test = table.split(0.25, seed=1)
        assert (len(train.target), len(test.target)) == (332, 110)
        torch.testing.assert_close(train.design.norm(dim=0), torch.ones(10, dtype=torch.float64))
        assert train.design.mean(dim=0).abs().max() < 1e-15
        assert train.target.norm().item() == pytest.approx(1)
        # Both parts are one affine map of the whole: its rows come back, each once.
        together = torch.cat([train.design, test.design])
        scale = table.design[:, 0].std() / together[:, 0].std()
        values = (together[:, 0] - together[:, 0].mean()) * scale
        torch.testing.assert_close(values.sort().values, table.design[:, 0].sort().values)

    def test_split_by_seed(self):
        table = load_regression_table()
        first, again, other = (table.split(seed=s)[0].target for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="degree must be 1 or 2, got 3"):
            load_regression_table(3)
        with pytest.raises(TypeError, match="dtype must be"):
            load_regression_table(dtype=torch.int64)
        for fraction in (0.0, 1.0, 1e-9):
            with pytest.raises(ValueError, match="test_fraction must"):
                load_regression_table().split(fraction)
