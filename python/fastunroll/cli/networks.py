"""``fastunroll train`` and ``evaluate``: networks on synthetic problems and on image patches."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from torch import Tensor

from fastunroll.cli.common import (
    Images,
    ModelFile,
    Seed,
    keep_settings,
    on_interrupt,
    print_table,
    refuse_options,
)
from fastunroll.cli.recovery import (
    LPG_NET,
    Budget,
    LossName,
    ModelName,
    Schedule,
    Variant,
    train_family,
)
from fastunroll.cli.tasks import NoisyPatches, SparseCodes, Task, dictionary_of
from fastunroll.data import SparseProblem, load_images, make_sparse_problem, overcomplete_dct
from fastunroll.data.seeds import stream_seed
from fastunroll.experiments.methods import tune
from fastunroll.experiments.recipe import Examples, Recipe, train_lpg_net
from fastunroll.io import load_model, save_model
from fastunroll.nn import LPGNet

PATCH_SIZE = 8
N_PATCH_ATOMS = 256
N_VALIDATION = 1000
N_LAYERS = 20
LPG_NET_ONLY = ("kind", "steps", "learning_rate", "density", "snr_db", "data", "sigma")
FAMILY_ONLY = ("variant", "schedule", "loss", "budget")
TRAINED_ONLY = ("schedule", "loss", "budget", "batch_size", "tensorboard")


class TaskName(str, Enum):
    """Kind of data."""

    synthetic = "synthetic"
    patches = "patches"


Kind = Annotated[
    TaskName,
    typer.Option("--task", help="Random sparse codes, or denoising of image patches."),
]
Density = Annotated[
    float,
    typer.Option(
        help="Probability of a non-zero.", min=0, max=1, rich_help_panel="Synthetic problem"
    ),
]
Snr = Annotated[
    float | None,
    typer.Option(
        "--snr-db",
        help="Signal-to-noise ratio in dB; no noise without it.",
        rich_help_panel="Synthetic problem",
    ),
]
Sigma = Annotated[
    float,
    typer.Option(
        help="Standard deviation of the noise, of 255 gray levels.",
        min=0,
        rich_help_panel="Image patches",
    ),
]


def train(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run.", file_okay=False)
    ],
    model: ModelName = LPG_NET,
    kind: Kind = TaskName.synthetic,
    n_layers: Annotated[
        int | None, typer.Option(help="Layers; by default 20 for LPG-Net, else 16.", min=1)
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps with all layers.", min=1)] = 1800,
    batch_size: Annotated[int, typer.Option(help="Samples in a step.", min=1)] = 64,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.", min=1e-9)] = 2e-2,
    seed: Seed = 0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard events, too.")
    ] = False,
    n_measurements: Annotated[
        int,
        typer.Option(help="Rows of the dictionary.", min=1, rich_help_panel="Synthetic problem"),
    ] = 250,
    n_atoms: Annotated[
        int,
        typer.Option(help="Columns of the dictionary.", min=1, rich_help_panel="Synthetic problem"),
    ] = 500,
    density: Density = 0.1,
    snr_db: Snr = None,
    data: Images = None,
    sigma: Sigma = 25.0,
    variant: Variant = "noiseless",
    schedule: Schedule = "layerwise",
    loss: LossName = "supervised",
    budget: Budget = "quick",
) -> None:
    """Train LPG-Net or a network of the LISTA family.

    LPG-Net learns a random dictionary, or image patches over a DCT dictionary; the others learn the
    benchmark problem of sparse recovery, layer by layer.

    The network goes to `model.safetensors` in the folder of the run, its history to `log.csv`. An
    interrupted training goes on where it stopped when the same command is given again.

    ```
    fastunroll train --output run --snr-db 40
    fastunroll train --output patches --task patches --sigma 25
    fastunroll train --output alista --model alista-ss --variant snr40
    ```
    """
    unused = FAMILY_ONLY if model == LPG_NET else LPG_NET_ONLY
    searched = model.startswith("hyperlista")
    refuse_options(context, unused + (TRAINED_ONLY if searched else ()), model)
    settings = {k: v for k, v in context.params.items() if k not in ("output", "tensorboard")}
    if model != LPG_NET:
        keep_settings(output / "settings.json", settings)
        train_family(
            output,
            model,
            n_layers,
            variant=variant,
            schedule=schedule,
            loss=loss,
            budget=budget,
            batch_size=batch_size,
            n_measurements=n_measurements,
            n_atoms=n_atoms,
            seed=seed,
            tensorboard=tensorboard,
        )
        return
    n_layers = n_layers or N_LAYERS
    if kind is TaskName.synthetic:
        dictionary = make_sparse_problem(n_measurements, n_atoms, seed=seed).dictionary
    else:
        dictionary = overcomplete_dct(PATCH_SIZE, N_PATCH_ATOMS)
    task = _make_task(kind, dictionary, density, snr_db, data, sigma, split="train")
    held_out = task.sample(N_VALIDATION, _generator(stream_seed(seed, "validation")))
    network = LPGNet.from_dictionary(dictionary, held_out.measurements, n_layers=n_layers)
    keep_settings(output / "settings.json", settings)
    with on_interrupt(f"{output} keeps all so far; the same command goes on from there"):
        result = train_lpg_net(
            network,
            lambda generator: task.sample(batch_size, generator),
            task.error,
            held_out,
            Recipe(steps=steps, learning_rate=learning_rate),
            objective_weight=_tuned_lambda(task, dictionary, held_out, n_layers),
            seed=seed,
            progress=True,
            directory=output,
            tensorboard=tensorboard,
        )
    path = output / "model.safetensors"
    save_model(network, path)
    with torch.inference_mode():
        metrics = task.metrics(network(held_out.measurements), held_out)
    print_table(f"{path}: {result.n_steps} steps, {N_VALIDATION} samples held out", metrics)


def evaluate(
    model: ModelFile,
    kind: Kind = TaskName.synthetic,
    n_samples: Annotated[int, typer.Option(help="Test samples.", min=1)] = 10_000,
    seed: Seed = 0,
    density: Density = 0.1,
    snr_db: Snr = None,
    data: Images = None,
    sigma: Sigma = 25.0,
) -> None:
    """Measure a network on fresh test data.

    ```
    fastunroll evaluate run/model.safetensors --snr-db 40
    fastunroll evaluate patches/model.safetensors --task patches --sigma 25
    ```
    """
    network = load_model(model).eval()
    dictionary = dictionary_of(network)
    task = _make_task(kind, dictionary, density, snr_db, data, sigma, split="test")
    with torch.inference_mode():
        examples = task.sample(n_samples, _generator(stream_seed(seed, "test")))
        metrics = task.metrics(network(examples.measurements), examples)
    print_table(f"{model}: {n_samples} test samples", metrics)


def _make_task(
    kind: TaskName,
    dictionary: Tensor,
    density: float,
    snr_db: float | None,
    data: Path | None,
    sigma: float,
    split: Literal["train", "test"],
) -> Task:
    if kind is TaskName.synthetic:
        return SparseCodes(SparseProblem(dictionary, density, snr_db))
    return NoisyPatches(load_images(data, split=split), dictionary, sigma)


def _tuned_lambda(task: Task, dictionary: Tensor, held_out: Examples, n_layers: int) -> float:
    """Lambda of the objective that must not rise: that of a FISTA of equal depth."""

    def error(codes: Tensor) -> float:
        return float(task.error(codes, held_out.target))

    return tune("FISTA", held_out.measurements, dictionary, error, n_layers).parameters[0]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
