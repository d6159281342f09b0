"""Settings of the experiments with the LISTA family: what is trained, on what, for how long."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastunroll._checks import check_choice
from fastunroll.data.benchmark import BenchmarkProblem, make_benchmark

_NOISELESS = ("noiseless",)
_NOISY = ("snr40", "snr30", "snr20")
_KAPPA = ("kappa5", "kappa30", "kappa50")

LAMBDA = 0.4
"""Weight of the l1 norm for ISTA, FISTA and Step-LISTA."""


@dataclass(frozen=True)
class Training:
    """Networks to train.

    Attributes
    ----------
    model : str
        One of `fastunroll.nn.catalogue.catalogue`.
    variants : tuple of str
        Benchmark problems, of `fastunroll.data.benchmark.VARIANTS`; one network for each.
    steps : int
        Steps per layer; for HyperLISTA, evaluations of each of its three searches.
    schedule : str
        One of `fastunroll.training.recovery.SCHEDULES`. In much noise, training layer by layer
        ends with last layers that do nothing, and all at once is better.
    """

    model: str
    variants: tuple[str, ...]
    steps: int
    schedule: str = "layerwise"


@dataclass(frozen=True)
class PanelSettings:
    """Size of the study of mismatched test sets."""

    densities: tuple[float, ...] = (0.05, 0.075, 0.1, 0.125, 0.15)
    variances: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    snrs: tuple[float, ...] = (60.0, 40.0, 30.0, 20.0)
    perturbations: tuple[float, ...] = (0.0, 0.0005, 0.001, 0.002, 0.005)
    """Standard deviations of what is added to the entries of A, whose own is 0.063."""
    n_test: int = 4000
    n_validation: int = 2000
    n_evaluations: int = 60


@dataclass(frozen=True)
class RobustSettings:
    """Size of the training of Robust ALISTA."""

    perturbation: float = 0.02
    """Largest standard deviation of what is added to the entries of A, in training."""
    test_perturbations: tuple[float, ...] = (0.0, 0.005, 0.01, 0.015, 0.02)
    encoder_steps: int = 1500
    steps: int = 2500
    """Steps of the training of all layers together with the encoder."""
    n_test_dictionaries: int = 10
    n_test: int = 500
    """Test samples of each dictionary."""


@dataclass(frozen=True)
class ListaSettings:
    """All that decides the results."""

    trainings: tuple[Training, ...]
    panels: PanelSettings
    robust: RobustSettings
    seed: int = 0
    n_layers: int = 16
    n_measurements: int = 250
    n_atoms: int = 500
    n_test: int = 10_000
    quick_steps: int = 150
    """Steps per layer of the training whose time is told."""
    timing_rounds: int = 7

    def problem(self, variant: str) -> BenchmarkProblem:
        """Benchmark problem of a variant."""
        return make_benchmark(
            variant,
            n_measurements=self.n_measurements,
            n_atoms=self.n_atoms,
            n_test=self.n_test,
            seed=self.seed,
        )


_BUDGETS = {
    "quick": ListaSettings(
        trainings=(
            Training("hyperlista", _NOISELESS, 60),
            Training("alista-ss", (*_NOISELESS, "snr40"), 60),
            Training("alista", _NOISELESS, 60),
            Training("tilista-ss", _NOISELESS, 60),
            Training("lista-cpss", _NOISELESS, 60),
            Training("lista", _NOISELESS, 60),
            Training("lamp", _NOISELESS, 60),
            Training("tista", ("snr40",), 30),
        ),
        panels=PanelSettings(
            densities=(0.05, 0.1, 0.15),
            variances=(0.5, 1.0, 2.0),
            snrs=(60.0, 40.0, 20.0),
            perturbations=(0.0, 0.001, 0.005),
            n_test=500,
            n_validation=500,
            n_evaluations=24,
        ),
        robust=RobustSettings(
            encoder_steps=60, steps=9, n_test_dictionaries=2, test_perturbations=(0.0, 0.01, 0.02)
        ),
        n_test=2000,
        timing_rounds=3,
    ),
    "full": ListaSettings(
        trainings=(
            Training("hyperlista", (*_NOISELESS, *_NOISY), 120),
            Training("alista-ss", _NOISELESS, 1500),
            Training("alista-ss", ("snr40", *_KAPPA), 300),
            Training("alista-ss", ("snr30", "snr20"), 300, schedule="end-to-end"),
            Training("tista", (*_NOISY, *_KAPPA, *_NOISELESS), 60),
            Training("na-alista", (*_NOISY, *_NOISELESS), 150),
            Training("lista-tied", _NOISELESS, 1500),
            Training("tilista-ss", _NOISELESS, 900),
            Training("lista-cpss", _NOISELESS, 600),
            Training("lamp", _NOISELESS, 450),
            Training("lamp", _NOISY, 150),
            Training("lista-cp", _NOISELESS, 600),
            Training("alista", _NOISELESS, 600),
            Training("lista", _NOISELESS, 600),
            Training("tilista", _NOISELESS, 300),
            Training("step-lista", (*_NOISELESS, *_NOISY), 100),
            Training("admm-csnet", _NOISELESS, 40),
            Training("glista", _NOISELESS, 60),
            Training("lista-ss", _NOISELESS, 150),
            Training("lista-mcp", _NOISELESS, 100),
            Training("lista-scad", _NOISELESS, 100),
            Training("liht-cp", _NOISELESS, 60),
            Training("liht", _NOISELESS, 60),
        ),
        panels=PanelSettings(
            densities=(0.05, 0.1, 0.15),
            variances=(0.5, 1.0, 2.0),
            snrs=(60.0, 40.0, 20.0),
            perturbations=(0.0, 0.001, 0.005),
            n_test=2000,
            n_evaluations=24,
        ),
        robust=RobustSettings(encoder_steps=600, steps=800),
    ),
}
BUDGETS = tuple(_BUDGETS)


def settings_of(budget: str, seed: int) -> ListaSettings:
    """Settings of a budget: ``"quick"`` (a quarter of an hour) or ``"full"`` (about 1.5 hours)."""
    return replace(_BUDGETS[check_choice("budget", budget, BUDGETS)], seed=seed)
