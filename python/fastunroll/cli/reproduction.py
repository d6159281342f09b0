"""``fastunroll demo`` and ``reproduce``: the experiments of the papers, with their report."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastunroll.cli.common import FAILED, Images, Seed, on_interrupt, refuse_options

_OUTPUT = Path("fastunroll-reproduction")
_COMMITTED = Path("docs/results")


class Experiment(str, Enum):
    """An experiment that can be reproduced."""

    lpg_net = "lpg-net"
    guarantees = "guarantees"
    lista = "lista"
    pudle = "pudle"


class Budget(str, Enum):
    """How much time an experiment may take."""

    quick = "quick"
    demo = "demo"
    full = "full"


_UNUSED = {
    Experiment.lpg_net: ("check", "models"),
    Experiment.guarantees: ("data", "models"),
    Experiment.lista: ("data",),
    Experiment.pudle: ("models",),
}
_UNUSED_BY_CHECK = ("budget", "data", "models", "seed")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to.", file_okay=False)
    ] = Path("fastunroll-demo"),
    data: Images = None,
    seed: Seed = 0,
) -> None:
    """Train LPG-Net, compare it with ISTA, FISTA, ADMM and plain PyTorch, and write a report.

    It takes a few minutes on two cores.

    ```
    fastunroll demo
    ```
    """
    _lpg_net(output, Budget.demo, data, seed)


def reproduce(
    context: typer.Context,
    experiment: Annotated[Experiment, typer.Argument(help="What to reproduce.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help=f"Folder of the results, by default {_OUTPUT}/EXPERIMENT.",
            file_okay=False,
        ),
    ] = None,
    budget: Annotated[Budget, typer.Option(help="Seconds, minutes or hours.")] = Budget.full,
    data: Images = None,
    seed: Seed = 0,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help=f"Only compare results, by default those in {_COMMITTED}, with their document "
            "(guarantees) or the targets of the full budget (lista, pudle).",
        ),
    ] = False,
    models: Annotated[
        str, typer.Option(help="Only train these networks, comma-separated (lista).")
    ] = "",
) -> None:
    """Reproduce the experiments of a paper, and write a report.

    ```
    fastunroll reproduce lpg-net
    fastunroll reproduce lpg-net --budget demo --output quick
    fastunroll reproduce guarantees --budget quick
    fastunroll reproduce lista --budget quick
    fastunroll reproduce lista --check --output fastunroll-reproduction/lista
    fastunroll reproduce pudle --budget quick --data photographs
    ```
    """
    refuse_options(context, _UNUSED[experiment], experiment.value)
    if check:
        refuse_options(context, _UNUSED_BY_CHECK, "--check")
        _check(experiment, output)
        return
    output = output or _OUTPUT / experiment.value
    if experiment is Experiment.lista:
        _lista(output, budget, seed, models)
    elif experiment is Experiment.pudle:
        _pudle(output, budget, data, seed)
    elif experiment is Experiment.guarantees:
        _guarantees(output, budget, seed)
    else:
        _lpg_net(output, budget, data, seed)


def _lpg_net(output: Path, budget: Budget, data: Path | None, seed: int) -> None:
    """Run the experiments with LPG-Net."""
    from fastunroll.experiments import lpg_net

    with on_interrupt(f"{output} keeps the finished parts; the same command goes on from there"):
        results = lpg_net.run(output, budget=budget.value, seed=seed, data=data)
    console = Console()
    console.print(lpg_net.summary_table(results))
    for claim in results.claims:
        verdict = "holds:" if claim.holds else "does not hold:"
        console.print(verdict, claim.text, style="dim", soft_wrap=True)
    typer.echo(f"report: {results.report}")


def _check(experiment: Experiment, output: Path | None) -> None:
    """Compare results, given or committed, with their document, or with their targets."""
    from fastunroll.experiments import guarantees
    from fastunroll.experiments.targets import RESULTS

    committed = _COMMITTED / experiment.value
    folder = output or committed
    if not (folder / RESULTS).is_file():
        raise FileNotFoundError(
            f"no {RESULTS} in {folder}: give a folder of results as --output, or run in the root "
            "of the repository without it"
        )
    if experiment is not Experiment.guarantees:
        _check_targets(folder, committed)
        return
    if missing := guarantees.check(folder):
        raise ValueError(f"the document in {folder} lacks, or contradicts: {missing[0]}")
    typer.echo(f"the document in {folder} agrees with its results")


def _guarantees(output: Path, budget: Budget, seed: int) -> None:
    """Run the experiments on optimisation guarantees."""
    from fastunroll.experiments import guarantees

    with on_interrupt(f"{output} keeps the finished parts; the same command goes on from there"):
        claims = guarantees.run(output, budget=budget.value, seed=seed)
    for claim in claims:
        typer.echo(f"{'holds' if claim.holds else 'does not hold'}: {claim.text} {claim.evidence}")
    typer.echo(f"report: {output / 'README.md'}")


def _lista(output: Path, budget: Budget, seed: int, models: str) -> None:
    """Run the experiments with the LISTA family, or train some of its networks."""
    from fastunroll.experiments import lista

    chosen = [name.strip() for name in models.split(",")] if models else []
    with on_interrupt(f"{output} keeps all so far; the same command goes on from there"):
        if chosen:
            lista.train(output, budget=budget.value, seed=seed, models=chosen)
            return
        lista.run(output, budget=budget.value, seed=seed)
    typer.echo(f"report: {output / lista.DOCUMENT}")


def _pudle(output: Path, budget: Budget, data: Path | None, seed: int) -> None:
    """Run the experiments with PUDLE."""
    from fastunroll.experiments import pudle

    with on_interrupt(f"{output} keeps all so far; the same command goes on from there"):
        pudle.run(output, budget=budget.value, seed=seed, data=data)
    typer.echo(f"report: {output / pudle.DOCUMENT}")


def _check_targets(folder: Path, committed: Path) -> None:
    """Compare results with the targets beside them, or the committed ones, line by line."""
    from fastunroll.experiments.targets import check

    outcomes = check(folder, committed)
    for outcome in outcomes:
        typer.echo(outcome.line)
    missed = sum(not outcome.met for outcome in outcomes)
    typer.echo(f"{len(outcomes) - missed} of {len(outcomes)} targets reached")
    if missed:
        raise typer.Exit(FAILED)
