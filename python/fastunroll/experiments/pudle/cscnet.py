"""A CSCNet-shaped model: its training, and its scores on whole images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import CSCNet, NoisyCrops, denoise_by_shifts
from fastunroll.experiments.pudle.images import Image, centre, image_scores, with_noise
from fastunroll.experiments.pudle.settings import CSCNetSettings
from fastunroll.io import load_model, save_model
from fastunroll.training import Stage, Trainer


def train_cscnet(
    s: CSCNetSettings,
    seed: int,
    train: Sequence[Image],
    path: Path,
    directory: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Train on noisy crops and save to ``path``; an interrupted training goes on.

    Every `held_out_side`-wide middle of some training images, which are left out of the training,
    is denoised by shifts from time to time; the best model is kept.

    Returns
    -------
    dict
        ``"curve"`` with steps, seconds and PSNR in dB (peak 1), ``"seconds"`` and ``"crops"``.
    """
    every = len(train) // s.n_held_out
    held_out = [centre(image, s.held_out_side) for image in train[::every][: s.n_held_out]]
    others = [image for index, image in enumerate(train) if index % every]
    noisy = with_noise(held_out, s.sigma, seed)
    generator = torch.Generator().manual_seed(stream_seed(seed, "dictionary"))
    filters = torch.randn(s.n_filters, 1, s.filter_size, s.filter_size, generator=generator)
    model = CSCNet(filters / s.filter_size, s.n_layers, stride=s.stride)

    def loss_in_db(model: CSCNet) -> float:
        found = [denoise_by_shifts(model, image) for image in noisy]
        errors = [np.square(x - true).mean() for x, true in zip(found, held_out, strict=True)]
        return float(np.mean(10 * np.log10(errors)))

    result = Trainer(
        model,
        NoisyCrops(others, s.crop, s.batch_size, sigma=s.sigma),
        lambda model, batch: model.loss(*batch),
        [
            Stage(
                name="all",
                max_steps=s.n_steps,
                learning_rate=s.learning_rate,
                decay=s.learning_rate_decay,
                relative=True,
            )
        ],
        validate=loss_in_db,
        validation_name="squared error (dB)",
        validate_every=s.validate_every,
        after_step=lambda model, step: model.project(),
        seed=stream_seed(seed, "training"),
        data=f"{len(others)} images",
        directory=directory,
        progress=progress,
    ).fit(resume=True)
    save_model(model, path)
    return {
        "curve": {
            "step": [record.step for record in result.records],
            "seconds": [record.seconds for record in result.records],
            "PSNR dB": [-r.validation for r in result.records if r.validation is not None],
        },
        "steps": result.n_steps,
        "crops": result.n_steps * s.batch_size,
        "training images": len(others),
        "seconds": result.seconds,
        "threads": torch.get_num_threads(),
    }


def score_cscnet(path: Path, s: CSCNetSettings, seed: int, test: Sequence[Image]) -> dict[str, Any]:
    """Scores of a saved model on whole test images, and the density of the codes of the first."""
    model = load_model(path)
    assert isinstance(model, CSCNet)
    clean = test[: s.n_images]
    noisy = with_noise(clean, s.sigma, seed)
    scores = image_scores(lambda image: denoise_by_shifts(model, image), clean, noisy)
    with torch.no_grad():
        codes = model(torch.from_numpy(centre(noisy[0], s.crop))[None, None])
    return {**scores, "density": float((codes != 0).double().mean())}
