"""``fastunroll encode`` and ``denoise``: a trained network on the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from fastunroll.cli.arrays import check_suffix, read_rows, write_rows
from fastunroll.cli.common import ModelFile, Seed, on_interrupt, print_table
from fastunroll.cli.tasks import GRAY_LEVELS, dictionary_of, patch_size
from fastunroll.data import by_luminance_and_chroma, denoise_image, read_image
from fastunroll.dictionary import PUDLE, ConvolutionalPUDLE, CSCNet, denoise_by_shifts
from fastunroll.io import atomic_write, load_model
from fastunroll.metrics import psnr, ssim
from fastunroll.nn import UnrolledNetwork

_UNITS = {"PSNR": " (dB)", "SSIM": ""}


def encode(
    model: ModelFile,
    measurements: Annotated[
        Path,
        typer.Argument(
            help="Measurements, one sample a row: .npy, .npz or .csv.",
            exists=True,
            dir_okay=False,
            metavar="INPUT",
            callback=check_suffix,
        ),
    ],
    codes: Annotated[
        Path,
        typer.Argument(
            help="Codes to write, one sample a row: .npy, .npz or .csv.",
            dir_okay=False,
            metavar="OUTPUT",
            callback=check_suffix,
        ),
    ],
    batch_size: Annotated[int, typer.Option(help="Samples to encode at once.", min=1)] = 4096,
) -> None:
    """Compute the sparse codes of a file of measurements.

    From .npy to .npy, the files may be larger than the memory.

    ```
    fastunroll encode run/model.safetensors measurements.npy codes.npy
    ```
    """
    network = load_model(model).eval()
    dictionary = dictionary_of(network)
    n_measurements, n_atoms = dictionary.shape
    rows = read_rows(measurements)
    if rows.shape[1] != n_measurements:
        raise ValueError(
            f"{measurements} has rows of {rows.shape[1]} numbers, but the dictionary of {model} "
            f"needs {n_measurements} measurements"
        )
    dtype = dictionary.numpy().dtype
    starts = range(0, len(rows), batch_size)
    terminal = Console(stderr=True)
    with (
        on_interrupt(f"{codes} was not written"),
        write_rows(codes, (len(rows), n_atoms), dtype) as out,
        torch.inference_mode(),
    ):
        for start in track(
            starts, "encode", console=terminal, transient=True, disable=not terminal.is_terminal
        ):
            batch = slice(start, start + batch_size)
            out[batch] = network(torch.from_numpy(np.array(rows[batch], dtype=dtype))).numpy()
    typer.echo(f"{codes}: {len(rows)} codes of {n_atoms} atoms")


def _check_image_suffix(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in Image.registered_extensions():
        raise typer.BadParameter(f"file '{path}' must end in an image format, such as .png.")
    return path


def denoise(
    image: Annotated[
        Path,
        typer.Argument(help="The image to denoise.", exists=True, dir_okay=False, metavar="IMAGE"),
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model",
            "-m",
            help="A network trained on patches or a learned dictionary, model.safetensors.",
            exists=True,
            dir_okay=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The image to write.",
            dir_okay=False,
            callback=_check_image_suffix,
        ),
    ],
    sigma: Annotated[
        float | None,
        typer.Option(
            help="Test: take IMAGE as clean, add noise of this standard deviation (of 255 gray "
            "levels) and compare.",
            min=0,
        ),
    ] = None,
    lam: Annotated[
        float | None,
        typer.Option(
            help="Weight of the l1 norm, the more the stronger the noise is; by default that which "
            "the dictionary was learned with.",
            min=0,
        ),
    ] = None,
    before_after: Annotated[
        Path | None,
        typer.Option(
            help="A picture to write, of the image before and after.",
            dir_okay=False,
            callback=_check_image_suffix,
        ),
    ] = None,
    stride: Annotated[int, typer.Option(help="Pixels from patch to patch.", min=1)] = 1,
    seed: Seed = 0,
) -> None:
    """Denoise an image, gray or in colour.

    A colour image is denoised plane by plane, in luminance and two chroma planes.

    ```
    fastunroll denoise noisy.png -m run/model.safetensors -o out.png
    fastunroll denoise clean.png -m run/model.safetensors -o out.png --sigma 25
    ```
    """
    network = load_model(model)
    if lam is not None:
        if not isinstance(network, PUDLE):
            raise ValueError(f"--lam has no meaning for {model}: it is no learned dictionary")
        network.lam.detach().fill_(lam)
    clean = read_image(image)
    noise = np.random.default_rng(seed).normal(0, (sigma or 0) / GRAY_LEVELS, clean.shape)
    noisy = clean + noise
    with on_interrupt(f"{output} was not written"), torch.inference_mode():
        denoised = _denoised(noisy, network.eval(), stride).clip(0, 1)
    with atomic_write(output) as temporary:
        Image.fromarray(np.uint8(np.rint(denoised * GRAY_LEVELS))).save(temporary)
    typer.echo(output)
    pictures = {"before": noisy, "after": denoised}
    if sigma is not None:
        scores = {
            (name, score): measure(picture, clean)
            for score, measure in (("PSNR", psnr), ("SSIM", ssim))
            for name, picture in (("noisy", noisy), ("denoised", denoised))
        }
        print_table(
            f"noise of standard deviation {sigma:g}",
            {f"{score} {name}{_UNITS[score]}": value for (name, score), value in scores.items()},
        )
        pictures = {"clean": clean} | {
            f"{name}: {scores[name, 'PSNR']:.2f} dB, SSIM {scores[name, 'SSIM']:.3f}": picture
            for name, picture in (("noisy", noisy), ("denoised", denoised))
        }
    if before_after is not None:
        from fastunroll.experiments.dictionary_plots import image_row

        with atomic_write(before_after) as temporary:
            image_row(pictures).savefig(temporary)
        typer.echo(before_after)


def _denoised(image: NDArray[np.float64], network: UnrolledNetwork, stride: int) -> Any:
    """Denoise an image, in planes of luminance and chroma if the network is for gray ones."""
    if isinstance(network, ConvolutionalPUDLE | CSCNet):
        if network.convolution.filter_shape[0] == 3:
            return denoise_by_shifts(network, image)
        return by_luminance_and_chroma(image, lambda plane: denoise_by_shifts(network, plane))
    dictionary = dictionary_of(network)
    size = patch_size(dictionary)
    return by_luminance_and_chroma(
        image, lambda plane: denoise_image(plane, network, dictionary, size, stride)
    )
