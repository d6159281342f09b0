"""The benchmark problem of sparse recovery: one file that holds all that a comparison needs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fastunroll._checks import check_choice, check_shape, check_tensor
from fastunroll.analysis.analytic import analytic_weight
from fastunroll.data.seeds import stream_seed
from fastunroll.data.synthetic import SparseBatch, SparseProblem, make_sparse_problem
from fastunroll.io import load_tensors, save_tensors
from fastunroll.metrics import nmse_db, sample_nmse_db

VERSION = 1
"""Version of how a benchmark problem is drawn; results of different versions do not compare."""

SNR_DEFINITION = "20 log10(std(A x) / std(noise)) of each sample, std over its entries"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What sets a variant apart from the noiseless problem with a Gaussian dictionary.

    Attributes
    ----------
    snr_db : float, optional
        Signal-to-noise ratio of all samples.
    condition_number : float, optional
        Of the dictionary, before its columns are scaled.
    test_density, test_amplitude_std : float
        Of the test codes; training and validation keep 0.1 and 1.
    test_perturbation : float
        Standard deviation of what is added to each entry of A, before the columns are scaled
        again, for the measurements of the test set.
    """

    snr_db: float | None = None
    condition_number: float | None = None
    test_density: float = 0.1
    test_amplitude_std: float = 1.0
    test_perturbation: float = 0.0


VARIANTS: dict[str, Variant] = {
    "noiseless": Variant(),
    **{f"snr{level}": Variant(snr_db=float(level)) for level in (40, 30, 20)},
    **{f"kappa{ratio}": Variant(condition_number=float(ratio)) for ratio in (5, 30, 50)},
    "density15": Variant(test_density=0.15),
    "variance2": Variant(test_amplitude_std=2.0**0.5),
    "perturbed": Variant(test_perturbation=0.02),
}
"""The benchmark problem and its variants, by name."""


class RecoveryScore(NamedTuple):
    """Normalised mean squared errors of codes, in dB."""

    nmse_db: float
    """10 log10(sum ||x - x*||^2 / sum ||x*||^2); the worst samples rule it."""
    median_db: float
    """That ratio of the median sample."""
    worst_db: float
    """That ratio of the worst sample."""


@dataclass(frozen=True, eq=False)
class BenchmarkProblem:
    """A dictionary, its analytic weights, and fixed samples to validate and to test on.

    Made by `make_benchmark` or read by `load_benchmark`. Random generators differ between devices
    and versions of PyTorch, so results from two places compare if they have the same `checksum`;
    send the file along.

    Attributes
    ----------
    dictionary : Tensor
        A, ``(n_measurements, n_atoms)``.
    weight : Tensor
        Analytic weights W, ``(n_measurements, n_atoms)``.
    test_dictionary : Tensor
        What the test set was measured with: A, or in the variant ``perturbed`` another matrix.
    validation, test : SparseBatch
        Samples that no training may see.
    variant : str
        One of `VARIANTS`.
    seed : int
        Seed of all streams.
    definition : dict
        Every number and definition that the samples follow, in terms of JSON.
    version : int
        See `VERSION`.
    """

    dictionary: Tensor
    weight: Tensor
    test_dictionary: Tensor
    validation: SparseBatch
    test: SparseBatch
    variant: str
    seed: int
    definition: Mapping[str, Any]
    version: int = field(default=VERSION)

    @property
    def training(self) -> SparseProblem:
        """Source of the training samples, that of the validation set."""
        return SparseProblem(self.dictionary, **self.definition["training"])

    @property
    def checksum(self) -> str:
        """SHA-256 of all tensors and definitions."""
        digest = hashlib.sha256(json.dumps(self._description(), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def score(self, codes: Tensor) -> RecoveryScore:
        """Compare codes ``(n_test, n_atoms)`` of the test set with the true ones.

        Raises
        ------
        TypeError, ValueError
            If ``codes`` is no dense float tensor of that shape.
        """
        true = self.test.codes
        check_shape("codes", check_tensor("codes", codes, (2,)), tuple(true.shape), "test set")
        samples = sample_nmse_db(codes, true)
        return RecoveryScore(nmse_db(codes, true), float(samples.median()), float(samples.max()))

    @torch.inference_mode()
    def evaluate(self, network: Callable[[Tensor], Tensor]) -> RecoveryScore:
        """Run a network, or any function from measurements to codes, on the test set."""
        return self.score(network(self.test.measurements))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file."""
        description = {**self._description(), "checksum": self.checksum}
        save_tensors(self._tensors(), {"benchmark": description}, path)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "dictionary": self.dictionary,
            "weight": self.weight,
            "test_dictionary": self.test_dictionary,
            **{f"validation/{n}": t for n, t in self.validation._asdict().items()},
            **{f"test/{n}": t for n, t in self.test._asdict().items()},
        }

    def _description(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "seed": self.seed,
            "definition": dict(self.definition),
            "version": self.version,
        }


def make_benchmark(
    variant: str = "noiseless",
    *,
    n_measurements: int = 250,
    n_atoms: int = 500,
    n_test: int = 10_000,
    n_validation: int = 1000,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> BenchmarkProblem:
    """Draw the benchmark problem: Bernoulli-Gauss codes of density 0.1 and variance 1.

    All variants of one seed have the same Gaussian dictionary, but for ``kappa``.

    Parameters
    ----------
    variant : str
        One of `VARIANTS`.
    n_measurements, n_atoms : int
        Shape of A.
    n_test, n_validation : int
        Numbers of samples.
    seed : int
        At least 0 and less than 2^30.
    dtype : torch.dtype
        float32 or float64.

    Returns
    -------
    BenchmarkProblem
        On the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; the message names it.

    References
    ----------
    Chen, Liu, Wang, Yin, "Theoretical linear convergence of unfolded ISTA and its practical weights
    and thresholds", NeurIPS 2018, section 5.1. Its SNR is defined otherwise; ours is in
    ``definition``.
    """
    chosen = VARIANTS[check_choice("variant", variant, tuple(VARIANTS))]
    problem = make_sparse_problem(
        n_measurements,
        n_atoms,
        snr_db=chosen.snr_db,
        condition_number=chosen.condition_number,
        seed=stream_seed(seed, "dictionary"),
        dtype=dtype,
    )
    dictionary = problem.dictionary
    generator = torch.Generator().manual_seed(stream_seed(seed, "test"))
    test_dictionary = dictionary.clone()  # a file may not hold one tensor twice
    if chosen.test_perturbation:
        error = torch.randn(dictionary.shape, generator=generator, dtype=torch.float64)
        perturbed = dictionary + chosen.test_perturbation * error
        test_dictionary = normalize(perturbed, dim=0).to(dtype)
    test_problem = SparseProblem(
        test_dictionary, chosen.test_density, chosen.snr_db, chosen.test_amplitude_std
    )
    validation = torch.Generator().manual_seed(stream_seed(seed, "validation"))
    return BenchmarkProblem(
        dictionary,
        analytic_weight(dictionary),
        test_dictionary,
        problem.sample(n_validation, validation),
        test_problem.sample(n_test, generator),
        variant,
        seed,
        {
            "dictionary": "normal entries, unit columns",
            "snr": SNR_DEFINITION,
            **asdict(chosen),
            "training": _distribution(problem),
            "test": _distribution(test_problem),
        },
    )


def load_benchmark(path: str | os.PathLike[str]) -> BenchmarkProblem:
    """Read a problem that `BenchmarkProblem.save` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds no benchmark problem, one of another version, or numbers that
        do not fit its checksum.
    """
    tensors, described = load_tensors(path)
    if "benchmark" not in described:
        raise ValueError(f"{path} holds no benchmark problem; expected a file of its save()")
    description = dict(described["benchmark"])
    checksum = description.pop("checksum", None)
    if description.get("version") != VERSION:
        raise ValueError(
            f"{path} holds version {description.get('version')} of the benchmark problem, but this "
            f"version of fastunroll knows version {VERSION}"
        )
    try:
        for name in ("validation", "test"):
            parts = (tensors.pop(f"{name}/{part}") for part in SparseBatch._fields)
            description[name] = SparseBatch(*parts)
        problem = BenchmarkProblem(**{**tensors, **description})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no complete benchmark problem: {error}") from error
    if problem.checksum != checksum:
        raise ValueError(f"{path} is damaged: its numbers do not fit its checksum")
    return problem


def _distribution(problem: SparseProblem) -> dict[str, float | None]:
    """Fields of a problem besides its dictionary."""
    return {
        "density": problem.density,
        "snr_db": problem.snr_db,
        "amplitude_std": problem.amplitude_std,
    }
