"""``fastunroll learn-filters``: a convolutional dictionary for the user's own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from fastunroll.cli.common import Seed, keep_settings, one_of
from fastunroll.cli.dictionary import keeping, write_dictionary
from fastunroll.cli.tasks import GRAY_LEVELS
from fastunroll.data.checksums import checksum
from fastunroll.data.images import find_images, readable_images
from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import ConvolutionalPUDLE, NoisyCrops
from fastunroll.dictionary.pudle import GRADIENTS
from fastunroll.dictionary.train import train_dictionary
from fastunroll.training.distributed import Ranks, process_group

N_WATCHED = 8
"""Crops on which the loss is watched and the usage of the filters counted."""


def learn_filters(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="A folder of images.", exists=True, file_okay=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run.", file_okay=False)
    ],
    filters: Annotated[int, typer.Option(help="Filters.", min=1)] = 64,
    size: Annotated[int, typer.Option(help="Side of a filter, in pixels.", min=2)] = 9,
    stride: Annotated[
        int, typer.Option(help="Pixels from one place of a filter to the next.", min=1)
    ] = 4,
    sigma: Annotated[
        float,
        typer.Option(
            help="Standard deviation of the noise to learn to remove, of 255 gray levels.", min=0
        ),
    ] = 25.0,
    gradient: Annotated[
        str,
        typer.Option(
            help=f"What is learned from: {', '.join(GRADIENTS)}.",
            metavar="NAME",
            callback=one_of(GRADIENTS),
        ),
    ] = "ae-ls",
    layers: Annotated[int, typer.Option(help="Layers of the encoder.", min=1)] = 15,
    lam: Annotated[float, typer.Option(help="Weight of the l1 norm.", min=0)] = 0.12,
    steps: Annotated[int, typer.Option(help="Steps of the training.", min=1)] = 3000,
    batch_size: Annotated[int, typer.Option(help="Crops in a step.", min=1)] = 1,
    crop: Annotated[
        int, typer.Option(help="Side of a crop: SIZE plus a multiple of STRIDE.", min=2)
    ] = 129,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.", min=1e-9)] = 3e-3,
    seed: Seed = 0,
) -> None:
    """Learn the filters of a convolutional dictionary with PUDLE.

    Crops of gray images in [0, 1] get noise, and the dictionary learns to rebuild them without it.

    The dictionary goes to `model.safetensors` in the folder of the run, a picture of its filters,
    the most used first, to `atoms.png`, and the history to `log.csv`. An interrupted training goes
    on where it stopped when the same command is given again.

    ```
    fastunroll learn-filters photographs --output run
    fastunroll denoise noisy.png -m run/model.safetensors -o out.png
    ```
    """
    settings = {name: value for name, value in context.params.items() if name != "output"}
    with process_group() as device, keeping(output):
        images = list(readable_images(find_images(source, split="all")))
        generator = torch.Generator().manual_seed(stream_seed(seed, "validation"))
        crops = NoisyCrops(images, crop, batch_size, sigma=sigma / GRAY_LEVELS)
        watched = NoisyCrops(crops.images, crop, N_WATCHED, sigma=crops.sigma)
        noisy, clean = (part.to(device) for part in watched(generator))
        model = ConvolutionalPUDLE(
            torch.randn(filters, 1, size, size, generator=generator),
            layers,
            stride=stride,
            lam=lam,
            gradient=gradient,
        ).to(device)
        model.convolution.check("crop", noisy, model.dictionary)

        def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
            found = crops(generator)
            return found[0].to(device), found[1].to(device)

        first = Ranks().is_first
        if first:
            keep_settings(output / "settings.json", settings | {"images": len(images)})
        result = train_dictionary(
            model,
            batch,
            steps,
            learning_rate=learning_rate,
            learning_rate_decay=0.05,
            validate=lambda model: float(model.loss(noisy, clean)),
            validation_name="loss",
            validate_every=50,
            seed=stream_seed(seed, "training"),
            data=f"images of checksum {checksum(images)}",
            directory=output,
            resume=True,
        )
        if first:
            title = f"{result.n_steps} steps in {result.seconds:.0f} s, {len(images)} images"
            write_dictionary(model, noisy, output, title, clean)
