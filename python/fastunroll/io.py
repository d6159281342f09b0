"""Files: atomic writes, and networks saved as data only (safetensors and JSON, never pickle)."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import fastunroll
from fastunroll._files import FORMAT, KEY, NO_PROGRAM, PROGRAM, read_file
from fastunroll.nn import MODELS, UnrolledNetwork


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file beside its place and rename it when complete.

    Readers see the old file or the new one, never a part; an error leaves the old file as it was.

    Parameters
    ----------
    path : path
        The file to write; its folder is made if there is none.

    Yields
    ------
    Path
        Where to write: a new name in the same folder with the same suffix.

    Examples
    --------
    >>> with atomic_write("table.csv") as temporary:
    ...     temporary.write_text("a,b")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        # Without this, a power cut after the rename may leave an empty file in place of the old.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_model(model: UnrolledNetwork, path: str | os.PathLike[str]) -> None:
    """Save a network: its tensors, bit for bit, its class name and its configuration.

    A network that has a program is saved with it, for `fastunroll.runtime`; another one with the
    reason why it has none.

    Parameters
    ----------
    model : UnrolledNetwork
        One of the classes in `fastunroll.nn.MODELS`, or a `PUDLE`, `ConvolutionalPUDLE` or
        `CSCNet` of `fastunroll.dictionary`.
    path : path
        A ``.safetensors`` file.

    Raises
    ------
    TypeError
        If ``model`` is of another class.
    ValueError
        If ``path`` has another suffix.
    """
    name, models = type(model).__name__, _models()
    if models.get(name) is not type(model):
        raise TypeError(f"model must be one of {', '.join(models)}; got {name}")
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {os.fspath(path)!r}")
    tensors = dict(model.state_dict())
    description = {"model": name, "config": model.config()}
    program = model.program()
    if program is not None:
        state = {t.data_ptr(): name for name, t in tensors.items() if t.is_contiguous()}
        names = {}
        for field, tensor in program.arrays.items():
            known = state.get(tensor.data_ptr())
            if known is None or tensors[known].shape != tensor.shape:
                known = f"{PROGRAM}/{field}"
                tensors[known] = tensor.clone()
            names[field] = known
        description[PROGRAM] = {"arrays": names, "options": program.options}
    else:
        description[NO_PROGRAM] = model.no_program
    save_tensors(tensors, description, path)


@torch.inference_mode(False)
def load_model(path: str | os.PathLike[str]) -> UnrolledNetwork:
    """Load a network saved by `save_model`, on the CPU.

    In ``torch.inference_mode()`` too, its tensors are ordinary ones: they can be trained.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, foreign, of an unknown format or model, or if its tensors do not
        fit its configuration.
    """
    tensors, description = load_tensors(path)
    tensors = {k: t for k, t in tensors.items() if not k.startswith(f"{PROGRAM}/")}
    if "model" not in description:
        raise ValueError(f"{path} holds no fastunroll model; expected a file of save_model()")
    name, models = description["model"], _models()
    if name not in models:
        raise ValueError(f"{path} holds the unknown model {name!r}; known: {', '.join(models)}")
    try:
        model = models[name].from_config(description["config"], tensors)
    except KeyError as error:
        raise ValueError(f"{path}: {name} needs {error}, which the file lacks") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not the configuration of a {name}: {error}") from error
    check_state(tensors, model.state_dict(), f"{path}: {name}")
    model.load_state_dict(tensors)
    return model


def _models() -> dict[str, type[UnrolledNetwork]]:
    """Every network that can be saved and loaded, by the name of its class."""
    from fastunroll import dictionary  # late: what it is built on uses this module

    learned = (dictionary.PUDLE, dictionary.ConvolutionalPUDLE, dictionary.CSCNet)
    return {**MODELS, **{model.__name__: model for model in learned}}


def save_tensors(
    tensors: Mapping[str, Tensor], description: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Write named tensors and a description that JSON can hold to one safetensors file.

    Raises
    ------
    OSError
        If it cannot be written, for instance on a full disk; an older file stays as it was.
    """
    text = json.dumps({"format": FORMAT, "version": fastunroll.__version__, **description})
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(plain, temporary, metadata={KEY: text})
        except SafetensorError as error:
            raise OSError(f"{os.fspath(path)} cannot be written: {error}") from error


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the description that `save_tensors` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, was not written by fastunroll, or has an unknown format.
    """
    return read_file(path, "pt")


def check_state(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Require the names, shapes and dtypes of a ``state_dict``.

    Raises
    ------
    ValueError
        With a message that begins with ``where``.
    """
    missing, unknown = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or unknown:
        raise ValueError(f"{where} lacks {sorted(missing)} and has unknown {sorted(unknown)}")
    for name, tensor in expected.items():
        have = found[name]
        if have.shape != tensor.shape or have.dtype != tensor.dtype:
            raise ValueError(
                f"{where} needs {name} of shape {tuple(tensor.shape)} and {tensor.dtype}, "
                f"got {tuple(have.shape)} and {have.dtype}"
            )
