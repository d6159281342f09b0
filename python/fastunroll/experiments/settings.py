"""Settings of the LPG-Net experiments: three budgets that differ in size only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fastunroll._checks import check_choice
from fastunroll.experiments.recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """All that decides the result of the experiments.

    The networks are trained, and the classical methods tuned, once, for noise and sparsity unknown
    beforehand: each sample has its own density in ``density_range`` and SNR in ``snr_range``.
    """

    seed: int = 0
    n_measurements: int = 100
    n_atoms: int = 128
    n_layers: int = 20
    density_range: tuple[float, float] = (0.05, 0.15)
    snr_range: tuple[float, float] = (0.0, 30.0)
    densities: tuple[float, ...] = (0.03, 0.05, 0.1, 0.15, 0.2)
    snrs: tuple[float, ...] = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
    density: float = 0.1
    """Density of the sweep over the SNR."""
    snr: float = 15.0
    """SNR of the sweep over the density, in dB."""
    recipe: Recipe = field(default_factory=Recipe)
    n_validation: int = 512
    n_test: int = 2048
    n_latency: int = 200
    patch_size: int = 8
    n_patch_atoms: int = 144
    sigma: float = 25.0
    """Standard deviation of the noise of the images, of 255 gray levels."""
    patch_recipe: Recipe = field(default_factory=lambda: Recipe(steps=900))
    n_images: int = 2
    image_side: int = 192
    stride: int = 2


_BUDGETS = {
    "demo": Settings(
        recipe=Recipe(growth_steps=25, steps=900),
        patch_recipe=Recipe(growth_steps=15, steps=450),
    ),
    "quick": Settings(
        n_measurements=20,
        n_atoms=24,
        n_layers=4,
        densities=(0.05, 0.15),
        snrs=(5.0, 25.0),
        recipe=Recipe(growth_steps=2, steps=6, batch=16),
        n_validation=32,
        n_test=64,
        n_latency=5,
        patch_size=4,
        n_patch_atoms=25,
        patch_recipe=Recipe(growth_steps=2, steps=6, batch=16),
        n_images=1,
        image_side=32,
    ),
    "full": Settings(
        n_measurements=250,
        n_atoms=320,
        recipe=Recipe(batch=128, growth_steps=150, steps=12000),
        n_test=10_000,
        n_latency=2000,
        patch_recipe=Recipe(batch=128, growth_steps=100, steps=6000),
        n_patch_atoms=256,
        n_images=68,
        image_side=512,
        stride=1,
    ),
}
BUDGETS = tuple(_BUDGETS)


def settings_of(budget: str, seed: int) -> Settings:
    """Settings of a budget: ``"demo"`` (minutes), ``"quick"`` (seconds) or ``"full"`` (hours)."""
    return replace(_BUDGETS[check_choice("budget", budget, BUDGETS)], seed=seed)
