"""Natural images from a folder, or the photographs that ship inside scikit-image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastunroll._checks import check_choice
from fastunroll._optional import import_optional

DATA_VARIABLE = "FASTUNROLL_DATA"
"""Environment variable that names the default folder of images."""

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_SPLITS = ("train", "test")
_HELP = (
    f"set {DATA_VARIABLE} or pass a folder (--data) with images, for example those of the "
    "Berkeley Segmentation Data Set (BSDS500)"
)

# Photographs that are part of scikit-image's wheel; others would need a download.
_SHIPPED = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
)


def load_images(
    folder: str | os.PathLike[str] | None = None, *, split: Literal["train", "test"]
) -> list[NDArray[np.float64]]:
    """Load the gray images of one split, sorted by path.

    The images are those in ``folder``; else in the folder that the environment variable
    ``FASTUNROLL_DATA`` names; else the photographs that ship inside scikit-image. Nothing is ever
    downloaded.

    A folder is searched at every depth. The images of a split are those below a folder whose name
    starts with ``train`` or ``test``, in upper or lower case. If there is no such folder at all,
    every fifth image, beginning with the first, is a test image and the others are for training.

    Parameters
    ----------
    folder : path, optional
        Where to look for images.
    split : {"train", "test"}
        Which images to load.

    Returns
    -------
    list of ndarray
        Gray images ``(height, width)``, float64, in [0, 1].

    Raises
    ------
    ValueError
        If ``split`` is unknown.
    FileNotFoundError
        If there is no such folder, or no readable image of the split in it.
    ImportError
        If Pillow or scikit-image is not installed.

    Warns
    -----
    UserWarning
        If some files cannot be read. They are left out.
    """
    check_choice("split", split, _SPLITS)
    return list(readable_images(find_images(folder, split=split)))


def find_images(
    folder: str | os.PathLike[str] | None = None, *, split: Literal["train", "test", "all"]
) -> list[Path]:
    """Find the files of the images of one split, sorted; ``"all"`` are those of both.

    Raises
    ------
    ValueError
        If ``split`` is unknown.
    FileNotFoundError
        If there is no such folder, or no image of the split in it.
    ImportError
        If no folder is given and scikit-image is not installed.
    """
    check_choice("split", split, (*_SPLITS, "all"))
    named = folder or os.environ.get(DATA_VARIABLE)
    root = Path(named or str(import_optional("skimage.data").data_dir))
    advice = "" if folder else f"; {_HELP}"
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}{advice}")
    found = sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if not named:
        found = [path for path in found if path.name in _SHIPPED]
    if not found:
        raise FileNotFoundError(f"there are no images in {root}{advice}")
    paths = found if split == "all" else _select(found, root, split)
    if not paths:
        raise FileNotFoundError(
            f"there are no images for the {split} split in {root}: it has {len(found)} in all; add "
            f"more, or a folder {split}"
        )
    return paths


def readable_images(paths: Iterable[Path]) -> Iterator[NDArray[np.float64]]:
    """Read images one after the other, in gray; see `load_images`.

    Raises
    ------
    FileNotFoundError
        If none of them is readable.

    Warns
    -----
    UserWarning
        At the end, if some files cannot be read. They are left out.
    """
    count, failures = 0, []
    for path in paths:
        count += 1
        try:
            image = to_gray(read_image(path))
        except ValueError as error:
            failures.append(error)
        else:
            yield image
    if count == len(failures):
        first = f"; the first: {failures[0]}" if failures else ""
        raise FileNotFoundError(f"none of {count} images is readable{first}")
    if failures:
        message = f"left out {len(failures)} of {count} images; the first: {failures[0]}"
        warnings.warn(message, stacklevel=3)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Read a gray or colour image.

    Takes 8-bit and 16-bit images, with or without a palette. Transparent parts are laid over
    white, a photograph is turned as its EXIF tag says, and of several frames the first is read.

    Parameters
    ----------
    path : path
        An image file of any format that Pillow reads.

    Returns
    -------
    ndarray
        ``(height, width)`` for gray and ``(height, width, 3)`` for colour; float64, in [0, 1].

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no image, is damaged, or has pixels of another type (32-bit, float).
    ImportError
        If Pillow is not installed.
    """
    pil_image, pil_ops = import_optional("PIL.Image"), import_optional("PIL.ImageOps")
    try:
        with pil_image.open(path) as file:
            image = pil_ops.exif_transpose(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"no such image: {path}") from None
    except Exception as error:  # the decoders raise many kinds on damaged files
        raise ValueError(f"{path} is not a readable image: {error}") from error

    if image.mode.startswith("I"):
        pixels = np.asarray(image, dtype=np.float64) / 65535
        if pixels.max() > 1 or pixels.min() < 0:
            raise ValueError(f"{path} has 32-bit pixels; expected 8 or 16 bits")
        return pixels
    if image.mode == "F":
        raise ValueError(f"{path} has floating-point pixels; expected 8 or 16 bits")
    gray = image.mode in ("1", "L", "LA", "La")
    pixels = np.asarray(image.convert("L" if gray else "RGB"), dtype=np.float64) / 255
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"), dtype=np.float64) / 255
        alpha = alpha if gray else alpha[..., None]
        pixels = alpha * pixels + (1 - alpha)
    return pixels


def to_gray(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert colour to gray: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Parameters
    ----------
    image : ndarray
        ``(height, width, 3)``, or ``(height, width)``, which is returned as it is.

    Returns
    -------
    ndarray
        ``(height, width)``.

    Raises
    ------
    ValueError
        If the shape is another one.
    """
    if image.ndim == 2:
        return image
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image must have shape (height, width) or (height, width, 3), got {image.shape}"
        )
    gray: NDArray[np.float64] = image @ np.array([0.299, 0.587, 0.114])
    return gray


def as_planes(name: str, image: object) -> NDArray[np.floating]:
    """Return an image, gray or of several channels, as ``(height, width, n_channels)``.

    Raises
    ------
    TypeError
        If it is no array of floating-point pixels.
    ValueError
        If it has another number of axes, or has NaN or Inf.
    """
    if not isinstance(image, np.ndarray) or not np.issubdtype(image.dtype, np.floating):
        kind = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"{name} must be an array of floating-point pixels, got {kind}")
    if image.ndim not in (2, 3):
        raise ValueError(
            f"{name} must be (height, width) or (height, width, n_channels), got {image.shape}"
        )
    if not np.isfinite(image).all():
        raise ValueError(f"{name} contains NaN or Inf")
    return image if image.ndim == 3 else image[..., None]


def _select(paths: list[Path], root: Path, split: str) -> list[Path]:
    """Keep the images of one split; see `load_images` for the rule."""

    def is_below(path: Path, name: str) -> bool:
        return any(part.lower().startswith(name) for part in path.relative_to(root).parent.parts)

    if any(is_below(path, name) for path in paths for name in _SPLITS):
        return [path for path in paths if is_below(path, split)]
    return [path for i, path in enumerate(paths) if (i % 5 == 0) == (split == "test")]
