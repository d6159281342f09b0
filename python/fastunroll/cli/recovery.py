"""``fastunroll train --model``: networks of the LISTA family on the benchmark problem."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from fastunroll.cli.common import on_interrupt, one_of, print_table
from fastunroll.data.benchmark import VARIANTS, BenchmarkProblem, make_benchmark
from fastunroll.io import save_model
from fastunroll.metrics import nmse_db
from fastunroll.nn import HyperLISTA
from fastunroll.nn.catalogue import catalogue, create
from fastunroll.training.recovery import BUDGETS, LOSSES, SCHEDULES, train_recovery
from fastunroll.training.search import search

LPG_NET = "lpg-net"
N_LAYERS = 16
PANEL = "LISTA family"


def check_budget(text: str) -> str:
    """Return a named budget or a number of steps as it is given; a usage error otherwise."""
    if text not in BUDGETS and not (text.isdecimal() and int(text) >= 3):
        raise typer.BadParameter(f"expected {', '.join(BUDGETS)} or a number from 3, got '{text}'.")
    return text


def _choice(option: str, names: Iterable[str], text: str, panel: str | None = PANEL) -> Any:
    names = tuple(names)
    return typer.Option(
        option,
        help=f"{text}: {', '.join(names)}.",
        metavar="NAME",
        callback=one_of(names),
        rich_help_panel=panel,
    )


ModelName = Annotated[str, _choice("--model", (LPG_NET, *catalogue), "Network", None)]
Variant = Annotated[str, _choice("--variant", VARIANTS, "Benchmark problem")]
Schedule = Annotated[str, _choice("--schedule", SCHEDULES, "What is trained when")]
LossName = Annotated[str, _choice("--loss", LOSSES, "Error of the codes, or LASSO objective")]
Budget = Annotated[
    str,
    typer.Option(
        help=f"Steps per layer: {', '.join(f'{name} ({n})' for name, n in BUDGETS.items())} or a "
        "number.",
        metavar="BUDGET",
        callback=check_budget,
        rich_help_panel=PANEL,
    ),
]


def train_family(
    output: Path,
    model: str,
    n_layers: int | None,
    *,
    variant: str,
    schedule: str,
    loss: str,
    budget: str,
    batch_size: int,
    n_measurements: int,
    n_atoms: int,
    seed: int,
    tensorboard: bool,
) -> None:
    """Train a network, save it to the folder of the run and print its test error.

    The three numbers of HyperLISTA are searched on the validation set; only ``variant``, sizes and
    seed matter to it.
    """
    problem = make_benchmark(variant, n_measurements=n_measurements, n_atoms=n_atoms, seed=seed)
    network = create(model, problem.training, n_layers or N_LAYERS)
    if isinstance(network, HyperLISTA):
        with on_interrupt("no network was written; the same command searches anew"):
            search(network, network.ranges, lambda net: _validation_nmse(net, problem))
        trained = "search"
    else:
        with on_interrupt(f"{output} keeps all so far; the same command goes on from there"):
            result = train_recovery(
                network,
                problem,
                schedule=schedule,
                loss=loss,
                budget=int(budget) if budget.isdecimal() else budget,
                batch_size=batch_size,
                seed=seed,
                directory=output,
                tensorboard=tensorboard,
            )
        trained = f"{result.n_steps} steps in {result.seconds:.0f} s"
    path = output / "model.safetensors"
    save_model(network, path)
    score = problem.evaluate(network)
    print_table(
        f"{path}: {model}, {trained}, {len(problem.test.codes)} test samples",
        {
            "NMSE (dB)": score.nmse_db,
            "NMSE, median sample (dB)": score.median_db,
            "NMSE, worst sample (dB)": score.worst_db,
            "learned numbers": network.n_parameters,
            "problem": f"{variant}, version {problem.version}, checksum {problem.checksum[:12]}",
        },
    )


def _validation_nmse(network: HyperLISTA, problem: BenchmarkProblem) -> float:
    return nmse_db(network(problem.validation.measurements), problem.validation.codes)
