"""Settings of the PUDLE experiments: what is learned, from what, for how long."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fastunroll._checks import check_choice


@dataclass(frozen=True)
class LocalSettings:
    """Size of Figs. 2 to 4: codes, gradients and trainings of a small dictionary."""

    n_measurements: int = 50
    n_atoms: int = 100
    n_samples: int = 10_000
    n_training_samples: int = 2000
    """Samples of the trainings; the paper has 10 000 there, too."""
    sparsity: int = 5
    lam: float = 0.2
    step: float = 0.2
    near: float = 0.02
    """Standard deviation of what is added to the entries of the true D for the gradients; 0.02
    makes columns of norm 0.55 / log(50) of it."""
    far: float = 0.1
    """The same for the trainings: 2.8 / log(50)."""
    layers: tuple[int, ...] = (1, 2, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 100, 120, 140, 160, 200)
    """Numbers of layers T at which gradients are computed."""
    limit_layers: int = 1000
    """Layers that stand for infinitely many."""
    depths: tuple[int, ...] = (25, 100)
    """Numbers of layers T of the trainings."""
    n_epochs: int = 600
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class RecoverySettings:
    """Size of Figs. 5 and 6: a large dictionary from fresh samples."""

    n_measurements: int = 1000
    n_atoms: int = 1500
    sparsities: tuple[int, ...] = (10, 20, 40)
    n_layers: int = 100
    batch_size: int = 50
    n_steps: int = 1000
    noise: float = 0.005
    """Standard deviation of what is added to the entries of the true D; 0.005 makes columns of norm
    1.09 / log(1000) of it."""
    lam: float = 0.2
    step: float = 0.2
    decay: float = 0.995
    """Factor of beta after every tenth of the steps; lambda_k = lambda beta^k in layer k."""
    threshold: float = 0.1
    learning_rate: float = 1e-3
    epsilon: float = 1e-3
    noodl_step: float = 0.4
    """20 / 50: the authors' code takes 20 and divides the gradient by the batch size twice."""
    alternating_samples: int = 5000
    alternating_iterations: int = 10


@dataclass(frozen=True)
class DenoisingSettings:
    """Size of Table 1: convolutional dictionaries for noisy images."""

    sigma: float = 25 / 255
    n_filters: int = 64
    filter_size: int = 9
    stride: int = 4
    n_layers: int = 15
    step: float = 0.1
    crop: int = 129
    lams: tuple[float, ...] = (0.08, 0.12, 0.16, 0.2)
    thresholds: tuple[float, ...] = (0.02, 0.05, 0.08, 0.1)
    batch_size: int = 1
    n_steps: int = 6000
    learning_rate: float = 1e-3
    learning_rate_decay: float = 0.05
    crops_per_image: int = 4
    """Test crops of each image."""
    n_images: int | None = None
    """Test images whose crops make up Table 1; all by default."""
    n_whole_images: int | None = None
    """Test images that are denoised whole; all if None."""


@dataclass(frozen=True)
class CSCNetStage:
    """One stage of the training of the CSCNet-shaped model."""

    crop: int
    batch_size: int
    n_steps: int
    learning_rate: float
    """In units of the root mean square of each parameter."""
    learning_rate_decay: float
    n_shifts: int | None = None
    """Random shifts of each crop whose mean estimate counts; None: the estimate of the crop."""


@dataclass(frozen=True)
class CSCNetSettings:
    """Size of the CSCNet-shaped model."""

    sigma: float = 25 / 255
    n_filters: int = 175
    filter_size: int = 11
    stride: int = 8
    n_layers: int = 12
    stages: tuple[CSCNetStage, ...] = (
        CSCNetStage(131, 4, 16_000, 3e-2, 0.02),
        CSCNetStage(99, 1, 12_000, 1e-2, 0.05, n_shifts=8),
        CSCNetStage(99, 1, 3000, 3e-3, 0.1, n_shifts=16),
    )
    n_held_out: int = 4
    """Training images kept for the curve of the training."""
    held_out_side: int = 128
    validate_every: int = 1000
    n_images: int | None = None
    """Whole test images that are denoised; all if None."""


@dataclass(frozen=True)
class PudleSettings:
    """All that decides the results."""

    seed: int = 0
    local: LocalSettings = field(default_factory=LocalSettings)
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    denoising: DenoisingSettings = field(default_factory=DenoisingSettings)
    cscnet: CSCNetSettings = field(default_factory=CSCNetSettings)
    speed_sparsity: int = 20
    speed_rounds: int = 5


_BUDGETS = {
    "quick": PudleSettings(
        local=LocalSettings(
            n_samples=1000,
            n_training_samples=500,
            layers=(1, 5, 10, 20, 40, 70, 100, 140),
            depths=(100,),
        ),
        recovery=RecoverySettings(
            n_measurements=200,
            n_atoms=300,
            sparsities=(3, 5),
            n_steps=400,
            noise=0.013,
            noodl_step=2.0,
            alternating_samples=1000,
            alternating_iterations=5,
        ),
        denoising=DenoisingSettings(
            lams=(0.12,),
            thresholds=(0.05,),
            n_steps=1200,
            learning_rate=3e-3,
            crops_per_image=2,
            n_images=1,
            n_whole_images=1,
        ),
        cscnet=CSCNetSettings(
            n_filters=64,
            stages=(
                CSCNetStage(131, 4, 600, 3e-2, 0.327),
                CSCNetStage(99, 1, 100, 1e-2, 0.05, n_shifts=4),
            ),
            n_held_out=1,
            validate_every=100,
            n_images=1,
        ),
        speed_sparsity=5,
        speed_rounds=1,
    ),
    "full": PudleSettings(),
}
BUDGETS = tuple(_BUDGETS)


def settings_of(budget: str, seed: int) -> PudleSettings:
    """Settings of a budget: ``"quick"`` (minutes) or ``"full"`` (hours)."""
    return replace(_BUDGETS[check_choice("budget", budget, BUDGETS)], seed=seed)
