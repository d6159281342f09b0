"""Settings of the experiments on optimisation guarantees: two budgets that differ in size only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fastunroll._checks import check_choice


@dataclass(frozen=True)
class FourierSettings:
    """Size of the example with undersampled Fourier measurements."""

    side: int = 16
    """Side of a block of the image, in pixels."""
    n_frequencies: int = 77
    """Complex measurements of a block: 30 % of its pixels."""
    n_layers: int = 8
    n_steps: int = 600
    batch: int = 64
    learning_rate: float = 1e-3
    image_side: int = 192


@dataclass(frozen=True)
class GuaranteeSettings:
    """All that decides the result of the experiments.

    The codes have ``n_atoms`` entries, each non-zero with probability ``density``, and half as many
    measurements.
    """

    seed: int = 0
    n_layers: int = 4
    density: float = 0.1
    widths: tuple[int, ...] = (32, 64)
    """n_atoms of the networks that are trained; the last one is that of the kernels."""
    samples: tuple[int, ...] = (10, 30, 100, 200, 400, 700, 1000)
    """Numbers of training samples T."""
    n_steps: int = 600
    """Budget of a training: full-batch steps of Adam."""
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Each network takes the one with the least training loss on ``n_tuning`` samples."""
    n_tuning: int = 200
    n_seeds: int = 3
    n_test: int = 1000
    near_zero: float = 0.01
    """Training loss, relative to that of the estimate 0, that counts as near zero."""
    kernel_samples: tuple[int, ...] = (5, 10, 20)
    n_kernel_seeds: int = 20
    hessian_widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    hessian_measurements: int = 32
    n_hessian_seeds: int = 6
    n_outputs: int = 2
    """Outputs, those of largest |s''|, over which the largest Hessian norm is taken."""
    descent_samples: int = 5
    descent_steps: int = 2000
    step_factor: float = 0.25
    """Step of the descent in units of 1 / ||Hessian of the loss at the start||; it is halved until
    the loss rises in no step."""
    n_descent_seeds: int = 3
    fourier: FourierSettings = field(default_factory=FourierSettings)


_BUDGETS = {
    "quick": GuaranteeSettings(
        widths=(16, 32),
        samples=(10, 30, 100, 300, 1000),
        n_steps=150,
        n_seeds=2,
        n_tuning=100,
        n_kernel_seeds=5,
        kernel_samples=(5, 10),
        hessian_widths=(64, 128, 256),
        n_hessian_seeds=3,
        descent_steps=500,
        n_descent_seeds=2,
        fourier=FourierSettings(n_layers=4, n_steps=100, image_side=128),
    ),
    "full": GuaranteeSettings(),
}
BUDGETS = tuple(_BUDGETS)


def settings_of(budget: str, seed: int) -> GuaranteeSettings:
    """Settings of a budget: ``"quick"`` (minutes) or ``"full"`` (half an hour)."""
    return replace(_BUDGETS[check_choice("budget", budget, BUDGETS)], seed=seed)
