"""``fastunroll learn-dictionary``: atoms for the user's own images or samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastunroll.cli.arrays import check_suffix, read_rows
from fastunroll.cli.common import Seed, keep_settings, on_interrupt, one_of, print_table
from fastunroll.data import folder_patches, remove_mean
from fastunroll.data.checksums import checksum
from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import PUDLE, ArraySource, initial_dictionary
from fastunroll.dictionary.initial import INITIAL
from fastunroll.dictionary.mosaic import mosaic, usage_of
from fastunroll.dictionary.pudle import GRADIENTS
from fastunroll.dictionary.train import train_dictionary
from fastunroll.io import atomic_write, save_model
from fastunroll.training.distributed import Ranks, process_group

N_WATCHED = 2000
"""Samples, at least, on which the loss is watched and the usage of the atoms counted."""

_FLAT = 1e-6
"""Standard deviation of the pixels of a patch without contrast."""

_LONGEST_SIDE = 1600
"""Pixels up to which the picture of the atoms is enlarged."""


def learn_dictionary(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of images, or samples, one a row: .npy, .npz or .csv.",
            exists=True,
            metavar="SOURCE",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run.", file_okay=False)
    ],
    atoms: Annotated[int, typer.Option(help="Atoms.", min=1)] = 256,
    patch_size: Annotated[
        int, typer.Option(help="Side of a patch, in pixels.", min=2, rich_help_panel="Images")
    ] = 8,
    patches: Annotated[
        int, typer.Option(help="Patches to learn from.", min=1, rich_help_panel="Images")
    ] = 100_000,
    gradient: Annotated[
        str,
        typer.Option(
            help=f"What is learned from: {', '.join(GRADIENTS)}.",
            metavar="NAME",
            callback=one_of(GRADIENTS),
        ),
    ] = "ae-ls",
    initial: Annotated[
        str,
        typer.Option(
            help=f"Atoms to start from: {', '.join(INITIAL)}.",
            metavar="NAME",
            callback=one_of(INITIAL),
        ),
    ] = "data",
    layers: Annotated[int, typer.Option(help="Layers of the encoder.", min=1)] = 20,
    lam: Annotated[float, typer.Option(help="Weight of the l1 norm.", min=0)] = 0.1,
    steps: Annotated[int, typer.Option(help="Steps of the training.", min=1)] = 2000,
    batch_size: Annotated[int, typer.Option(help="Samples in a step.", min=1)] = 256,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.", min=1e-9)] = 2e-3,
    seed: Seed = 0,
) -> None:
    """Learn a dictionary with PUDLE.

    Images are cut into gray patches in [0, 1], whose means are taken off; an array is used as it
    is, and read from the disk as it is needed.

    The dictionary goes to `model.safetensors` in the folder of the run, a picture of its atoms, the
    most used first, to `atoms.png`, and the history to `log.csv`. An interrupted training goes on
    where it stopped when the same command is given again.

    ```
    fastunroll learn-dictionary photographs --output run
    fastunroll learn-dictionary samples.npy --output run --atoms 100 --lam 0.5
    fastunroll denoise noisy.png -m run/model.safetensors -o out.png
    torchrun --nproc-per-node 2 --no-python fastunroll learn-dictionary photographs --output run
    ```
    """
    settings = {name: value for name, value in context.params.items() if name != "output"}
    with process_group() as device, keeping(output):
        generator = torch.Generator().manual_seed(stream_seed(seed, "validation"))
        samples = _samples(source, patch_size, patches, generator)
        data = ArraySource(samples, batch_size, transform=lambda batch: batch.to(device))
        rows = torch.randperm(len(data), generator=generator)[: max(N_WATCHED, 4 * atoms)]
        watched = data.take(rows.sort().values)
        # An array may be too large to be read as a whole.
        known = checksum([(samples if isinstance(samples, Tensor) else watched.cpu()).numpy()])
        model = PUDLE(
            initial_dictionary(watched, atoms, generator, kind=initial),
            layers,
            lam=lam,
            gradient=gradient,
            accelerated=True,
            constraint="normalised",
        ).to(device)
        first = Ranks().is_first
        if first:
            keep_settings(output / "settings.json", settings | {"samples": len(data)})
        result = train_dictionary(
            model,
            data,
            steps,
            learning_rate=learning_rate,
            learning_rate_decay=0.1,
            validate=lambda model: float(model.loss(watched)),
            validation_name="loss",
            validate_every=50,
            seed=stream_seed(seed, "training"),
            data=f"samples of checksum {known}",
            directory=output,
            resume=True,
        )
        if first:
            title = f"{result.n_steps} steps in {result.seconds:.0f} s, {len(data)} samples"
            write_dictionary(model, watched, output, title)


def _samples(
    source: Path, patch_size: int, count: int, generator: torch.Generator
) -> Tensor | NDArray[Any]:
    """Samples of an array as they are, or patches of the images in a folder without means."""
    if not source.is_dir():
        return read_rows(check_suffix(source))
    patches, _ = remove_mean(folder_patches(source, patch_size, count, generator))
    patches = patches[patches.norm(dim=1) > _FLAT * patch_size]
    if not len(patches):
        raise ValueError(f"{source} must hold an image with some contrast: all patches are flat")
    return patches


def write_dictionary(
    model: PUDLE, watched: Tensor, output: Path, title: str, target: Tensor | None = None
) -> None:
    """Write model and picture, and print how the dictionary does on some samples.

    ``target`` is what the samples are to be decoded to, see `PUDLE.loss`.
    """
    path = output / "model.safetensors"
    save_model(model, path)
    with torch.inference_mode():
        codes = model.eval()(watched).movedim(1, -1).flatten(0, -2)
        loss = float(model.loss(watched, target))
    pixels = mosaic(model.dictionary, usage_of(codes))
    picture = Image.fromarray(pixels)
    scale = max(1, _LONGEST_SIDE // max(picture.size))
    with atomic_write(output / "atoms.png") as temporary:
        picture.resize((scale * picture.width, scale * picture.height), 0).save(temporary)
    figures = {
        "loss": loss,
        "share of non-zeros": float((codes != 0).double().mean()),
        "atoms never used": int((codes == 0).all(dim=0).sum()),
        "picture": output / "atoms.png",
    }
    print_table(f"{path}: {title}", figures)


@contextmanager
def keeping(output: Path) -> Iterator[None]:
    """Say what is kept when the user interrupts the ``with`` block, or a file fails."""
    with on_interrupt(f"{output} keeps all so far; the same command goes on from there"):
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OSError(f"{error}; {output} keeps all that was written before") from error
