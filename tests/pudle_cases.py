"""A tiny run of the experiments with PUDLE, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from fastunroll.experiments.pudle.settings import (
    CSCNetSettings,
    CSCNetStage,
    DenoisingSettings,
    LocalSettings,
    PudleSettings,
    RecoverySettings,
)

TINY = PudleSettings(
    local=LocalSettings(
        n_measurements=10,
        n_atoms=16,
        n_samples=60,
        n_training_samples=60,
        sparsity=2,
        layers=(1, 10, 40, 80),
        depths=(5,),
        n_epochs=4,
    ),
    recovery=RecoverySettings(
        n_measurements=20,
        n_atoms=30,
        sparsities=(2,),
        n_layers=10,
        batch_size=10,
        n_steps=50,
        noise=0.03,
        noodl_step=0.2,
        alternating_samples=400,
        alternating_iterations=2,
    ),
    denoising=DenoisingSettings(
        n_filters=4,
        filter_size=5,
        n_layers=2,
        crop=17,
        lams=(0.12, 0.2),
        thresholds=(0.05, 0.06),
        n_steps=3,
        crops_per_image=1,
    ),
    cscnet=CSCNetSettings(
        n_filters=4,
        filter_size=5,
        stride=4,
        n_layers=2,
        stages=(CSCNetStage(17, 2, 4, 3e-2, 1.0), CSCNetStage(13, 1, 2, 1e-2, 1.0, n_shifts=3)),
        n_held_out=1,
        held_out_side=20,
        validate_every=2,
    ),
    speed_sparsity=2,
    speed_rounds=1,
)


def photographs(folder: Path) -> Path:
    """Write smooth images of 30 x 30 pixels, three for training and two for tests."""
    rows = np.arange(30)
    for index in range(5):
        wave = 120 + 100 * np.sin((index + 1) * rows[:, None] / 9) * np.cos(rows / 7)
        path = folder / ("train" if index < 3 else "test") / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(wave.astype(np.uint8)).save(path)
    return folder
