"""The benchmark problem: what it is made of, its file, and its scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastunroll.data import VARIANTS, BenchmarkProblem, load_benchmark, make_benchmark
from fastunroll.data.seeds import stream_seed
from fastunroll.io import save_tensors

SIZES: dict[str, Any] = {
    "n_measurements": 30,
    "n_atoms": 60,
    "n_test": 400,
    "n_validation": 50,
    "dtype": torch.float64,
}


def make(variant: str = "noiseless", **changes: Any) -> BenchmarkProblem:
    return make_benchmark(variant, **{**SIZES, **changes})


def density(codes: torch.Tensor) -> float:
    return float((codes != 0).double().mean())


def realised_snr_db(problem: BenchmarkProblem, batch: Any) -> float:
    """Mean over the samples of the ratio as the definition has it, in NumPy."""
    a = problem.test_dictionary.numpy()
    some = batch.codes.any(dim=1)  # codes of zeros have no noise
    clean = batch.codes[some].numpy() @ a.T
    noise = batch.measurements[some].numpy() - clean
    return float(np.mean(20 * np.log10(clean.std(axis=1) / noise.std(axis=1))))


# ---- what it is made of


def test_the_default_is_the_published_problem() -> None:
    problem = make_benchmark(n_test=10)
    assert problem.dictionary.shape == problem.weight.shape == (250, 500)
    torch.testing.assert_close(problem.dictionary.norm(dim=0), torch.ones(500))
    assert len(problem.validation.codes) == 1000
    codes = problem.validation.codes
    assert density(codes) == pytest.approx(0.1, abs=0.005)
    assert float(codes[codes != 0].std()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(problem.test.measurements, problem.test.codes @ problem.dictionary.T)


def test_the_weights_are_the_analytic_ones() -> None:
    problem = make()
    a = problem.dictionary.numpy()
    inverse = np.linalg.inv(a @ a.T)
    expected = inverse @ a / np.einsum("mj,mk,kj->j", a, inverse, a)
    np.testing.assert_allclose(problem.weight.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("level", [40, 30, 20])
def test_noise_has_its_level_everywhere(level: int) -> None:
    problem = make(f"snr{level}")
    for batch in (problem.validation, problem.test):
        assert realised_snr_db(problem, batch) == pytest.approx(level, abs=0.5)
    assert problem.training.snr_db == level


@pytest.mark.parametrize("ratio", [5, 30, 50])
def test_kappa_sets_the_condition_number(ratio: int) -> None:
    # Scaling the columns moves it, the less the larger the dictionary.
    dictionary = make(f"kappa{ratio}", n_measurements=100, n_atoms=200).dictionary
    assert float(torch.linalg.cond(dictionary)) == pytest.approx(ratio, rel=0.15)


def test_mismatches_change_the_test_set_only() -> None:
    plain = make()
    for variant in ("density15", "variance2", "perturbed"):
        problem = make(variant)
        assert torch.equal(problem.dictionary, plain.dictionary)
        assert torch.equal(problem.validation.codes, plain.validation.codes)
        assert (problem.training.density, problem.training.amplitude_std) == (0.1, 1.0)
        assert not torch.equal(problem.test.measurements, plain.test.measurements)
    assert density(make("density15").test.codes) == pytest.approx(0.15, abs=0.01)
    codes = make("variance2").test.codes
    assert float(codes[codes != 0].var()) == pytest.approx(2, abs=0.15)


def test_the_perturbed_variant_measures_with_another_matrix() -> None:
    problem = make("perturbed")
    other = problem.test_dictionary
    torch.testing.assert_close(other.norm(dim=0), torch.ones(60, dtype=torch.float64))
    assert 0.01 < float((other - problem.dictionary).std()) < 0.03
    torch.testing.assert_close(problem.test.measurements, problem.test.codes @ other.T)
    assert torch.equal(problem.weight, make().weight)


def test_seeds_decide() -> None:
    assert make().checksum == make().checksum
    assert make(seed=1).checksum != make().checksum
    assert len({make(variant).checksum for variant in VARIANTS}) == len(VARIANTS)


def test_streams_of_a_seed_differ() -> None:
    """Bits above the lowest 32 of a seed do nothing in PyTorch, which is easy to overlook."""
    streams = ("dictionary", "training", "validation", "test")
    generators = [torch.Generator().manual_seed(stream_seed(3, name)) for name in streams]
    assert len({float(torch.rand((), generator=g)) for g in generators}) == len(streams)


# ---- scores


def test_scores_are_those_of_the_definition() -> None:
    problem = make(n_atoms=200)  # enough for no sample to be zero
    true = problem.test.codes
    codes = true + 0.1 * torch.randn(true.shape, generator=torch.Generator(), dtype=torch.float64)
    error = ((codes - true).numpy() ** 2).sum(axis=1)
    energy = (true.numpy() ** 2).sum(axis=1)
    samples = np.sort(10 * np.log10(error / energy))
    score = problem.score(codes)
    assert score.nmse_db == pytest.approx(10 * np.log10(error.sum() / energy.sum()))
    assert score.median_db == pytest.approx(samples[(len(samples) - 1) // 2])
    assert score.worst_db == pytest.approx(samples[-1])
    zero = problem.evaluate(lambda b: b.new_zeros(len(b), 200))
    assert zero == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("shape", "error"), [((400, 59), ValueError), ((400,), ValueError)])
def test_codes_of_another_shape_are_refused(shape: tuple[int, ...], error: type) -> None:
    with pytest.raises(error, match="codes must have"):
        make().score(torch.zeros(shape, dtype=torch.float64))


# ---- the file


def test_a_file_brings_everything_back(tmp_path: Path) -> None:
    for variant in ("noiseless", "perturbed"):
        problem = make(variant, seed=4)
        problem.save(tmp_path / "problem.safetensors")
        loaded = load_benchmark(tmp_path / "problem.safetensors")
        assert loaded.checksum == problem.checksum
        for field in dataclasses.fields(problem):
            ours, expected = getattr(loaded, field.name), getattr(problem, field.name)
            if isinstance(expected, torch.Tensor):
                assert torch.equal(ours, expected)
            elif isinstance(expected, tuple):
                assert all(map(torch.equal, ours, expected))
            else:
                assert ours == expected
        first, second = (
            p.training.sample(5, torch.Generator().manual_seed(0)) for p in (problem, loaded)
        )
        assert torch.equal(first.measurements, second.measurements)


def rewrite(path: Path, change: Any) -> None:
    """Change the tensors of a file and leave its description as it is."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def test_changed_numbers_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "problem.safetensors"
    make().save(path)
    rewrite(path, lambda tensors: tensors["test/codes"][3].mul_(1 + 1e-9))
    with pytest.raises(ValueError, match=r"problem\.safetensors is damaged: .* checksum"):
        load_benchmark(path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "problem.safetensors"
    for name in ("weight", "test/codes"):
        make().save(path)
        rewrite(path, lambda tensors, name=name: tensors.pop(name))
        with pytest.raises(ValueError, match=f"no complete benchmark problem: .*{name}"):
            load_benchmark(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "problem.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_benchmark(path)
    make().save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is damaged"):
        load_benchmark(path)
    save_tensors({"a": torch.zeros(1)}, {}, path)
    with pytest.raises(ValueError, match="holds no benchmark problem"):
        load_benchmark(path)
    dataclasses.replace(make(), version=7).save(path)
    with pytest.raises(ValueError, match=r"holds version 7 .* knows version 1"):
        load_benchmark(path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"variant": "snr50"}, ValueError, "variant must be one of noiseless, snr40"),
        ({"n_test": 0}, ValueError, "batch must be at least 1"),
        ({"n_atoms": 2.0}, TypeError, "n_atoms must be an int"),
        ({"seed": -1}, ValueError, "seed must be from 0 to"),
        ({"seed": 1 << 30}, ValueError, "seed must be from 0 to"),
        ({"seed": "0"}, TypeError, "seed must be an int"),
        ({"dtype": torch.float16}, TypeError, "dtype must be float32 or float64"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make(**arguments)
