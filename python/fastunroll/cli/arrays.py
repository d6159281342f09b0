"""Matrices in .npy, .npz and .csv files, one sample a row."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import typer
from numpy.typing import DTypeLike, NDArray

from fastunroll.io import atomic_write


def check_suffix(path: Path) -> Path:
    """Return the path of a file that `read_rows` and `write_rows` know (BadParameter otherwise)."""
    if path.suffix not in _READERS:
        raise typer.BadParameter(f"file '{path}' must end in {', '.join(_READERS)}.")
    return path


def read_rows(path: Path) -> NDArray[Any]:
    """Read a numeric matrix ``(n_samples, width)``; a single row may be 1-D.

    A ``.npy`` file is mapped into memory, not loaded, so that it may be larger than the memory. An
    ``.npz`` file must hold one array, or one named ``measurements``. A ``.csv`` file has commas and
    no header.

    Raises
    ------
    ValueError
        If the file is damaged or holds something else.
    """
    try:
        rows = _READERS[path.suffix](path)
    except (BadZipFile, EOFError, UserWarning, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise ValueError(
            f"{path} must hold a matrix of real numbers, one sample a row; "
            f"got shape {rows.shape} of {rows.dtype}"
        )
    return rows


@contextmanager
def write_rows(path: Path, shape: tuple[int, int], dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """Write a matrix that the ``with`` block fills; on an error no file appears.

    A ``.npy`` file is filled on the disk, so that it may be larger than the memory.
    """
    with atomic_write(path) as temporary:
        if path.suffix == ".npy":
            mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            yield mapped
            mapped.flush()
            return
        rows = np.empty(shape, dtype=dtype)
        yield rows
        if path.suffix == ".npz":
            np.savez_compressed(temporary, codes=rows)
        else:
            digits = 9 if rows.dtype == np.float32 else 17  # enough to read the same number again
            np.savetxt(temporary, rows, delimiter=",", fmt=f"%.{digits}g")


def _read_csv(path: Path) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy only warns of a file without numbers
        return np.loadtxt(path, delimiter=",", ndmin=2)


def _read_npy(path: Path) -> NDArray[Any]:
    return np.lib.format.open_memmap(path, mode="r")


def _read_npz(path: Path) -> NDArray[Any]:
    if not is_zipfile(path):
        raise ValueError("it is no archive of arrays")
    with np.load(path) as archive:
        name = archive.files[0] if len(archive.files) == 1 else "measurements"
        if name not in archive.files:
            raise ValueError(
                f"expected one array, or one named 'measurements'; got {archive.files}"
            )
        return np.asarray(archive[name])


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv}
