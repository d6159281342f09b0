"""A CSCNet-shaped model: its training, and its scores on whole images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import CSCNet, NoisyCrops, average_over_shifts, denoise_by_shifts
from fastunroll.experiments.pudle.images import Image, centre, image_scores, with_noise
from fastunroll.experiments.pudle.settings import CSCNetSettings
from fastunroll.io import load_model, save_model
from fastunroll.training import Stage, Trainer, TrainingResult


def train_cscnet(
    s: CSCNetSettings,
    seed: int,
    train: Sequence[Image],
    path: Path,
    directory: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Train on noisy crops, stage by stage, and save to ``path``; an interrupted training goes on.

    ``train`` holds more than `n_held_out` images. Some of them are left out of the training: their
    `held_out_side`-wide middles are denoised by shifts from time to time; the best model is kept.

    Returns
    -------
    dict
        ``"curve"`` with steps, seconds and PSNR in dB (peak 1), ``"seconds"`` and ``"crops"``.
    """
    chosen = [number * len(train) // s.n_held_out for number in range(s.n_held_out)]
    held_out = [centre(train[index], s.held_out_side) for index in chosen]
    others = [image for index, image in enumerate(train) if index not in chosen]
    noisy = with_noise(held_out, s.sigma, seed)
    generator = torch.Generator().manual_seed(stream_seed(seed, "dictionary"))
    filters = torch.randn(s.n_filters, 1, s.filter_size, s.filter_size, generator=generator)
    model = CSCNet(filters / s.filter_size, s.n_layers, stride=s.stride)

    def loss_in_db(model: CSCNet) -> float:
        found = [denoise_by_shifts(model, image) for image in noisy]
        errors = [np.square(x - true).mean() for x, true in zip(found, held_out, strict=True)]
        return float(np.mean(10 * np.log10(errors)))

    results = [
        Trainer(
            model,
            _Crops(
                NoisyCrops(others, stage.crop, stage.batch_size, sigma=s.sigma),
                s.stride,
                stage.n_shifts,
            ),
            _loss,
            [
                Stage(
                    name="all",
                    max_steps=stage.n_steps,
                    learning_rate=stage.learning_rate,
                    decay=stage.learning_rate_decay,
                    relative=True,
                )
            ],
            validate=loss_in_db,
            validation_name="squared error (dB)",
            validate_every=s.validate_every,
            after_step=lambda model, step: model.project(),
            seed=stream_seed(seed, "training") + number,
            data=f"{len(others)} images",
            directory=directory / str(number),
            progress=progress,
        ).fit(resume=True)
        for number, stage in enumerate(s.stages)
    ]
    save_model(model, path)
    return {
        "curve": _curve(results),
        "steps": sum(result.n_steps for result in results),
        "crops": sum(
            result.n_steps * stage.batch_size
            for result, stage in zip(results, s.stages, strict=True)
        ),
        "training images": len(others),
        "seconds": sum(result.seconds for result in results),
        "threads": torch.get_num_threads(),
    }


@dataclass(frozen=True)
class _Crops:
    """Noisy and clean crops, and some shifts of the grid of filters, by their numbers."""

    crops: NoisyCrops
    stride: int
    n_shifts: int | None

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        batch = self.crops(generator)
        if self.n_shifts is None:
            return batch
        return (*batch, torch.randperm(self.stride**2, generator=generator)[: self.n_shifts])


def _loss(model: CSCNet, batch: tuple[Tensor, ...]) -> Tensor:
    """Squared error of the estimates, or of their mean over shifts, as `denoise_by_shifts` does."""
    noisy, clean, *shifts = batch
    if not shifts:
        return model.loss(noisy, clean)
    stride, kernel = model.convolution.stride, model.convolution.filter_shape[1:]
    offsets = [divmod(number, stride) for number in shifts[0].tolist()]
    estimate = average_over_shifts(noisy, lambda x: model.decode(model(x)), kernel, stride, offsets)
    return 0.5 * (clean - estimate).square().flatten(1).sum(dim=1).mean()


def _curve(results: Sequence[TrainingResult]) -> dict[str, list[float]]:
    """PSNR in dB of the held-out crops over the steps and seconds of all stages."""
    curve: dict[str, list[float]] = {"step": [], "seconds": [], "PSNR dB": []}
    steps, seconds = 0, 0.0
    for result in results:
        for record in result.records:
            if record.validation is not None:
                curve["step"].append(steps + record.step)
                curve["seconds"].append(seconds + record.seconds)
                curve["PSNR dB"].append(-record.validation)
        steps, seconds = steps + result.n_steps, seconds + result.seconds
    return curve


def score_cscnet(path: Path, s: CSCNetSettings, seed: int, test: Sequence[Image]) -> dict[str, Any]:
    """Scores of a saved model on whole test images, and the density of the codes of the first."""
    model = load_model(path)
    assert isinstance(model, CSCNet)
    clean = test[: s.n_images]
    noisy = with_noise(clean, s.sigma, seed)
    scores = image_scores(lambda image: denoise_by_shifts(model, image), clean, noisy)
    with torch.no_grad():
        codes = model(torch.from_numpy(centre(noisy[0], s.stages[0].crop))[None, None])
    return {**scores, "density": float((codes != 0).double().mean())}
