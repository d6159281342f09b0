"""``fastunroll demo`` and ``reproduce``: the experiments of the papers, with their report."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastunroll.cli.common import FAILED, Images, Seed, on_interrupt

_OUTPUT = Path("fastunroll-reproduction")
_RESULTS = Path("docs/results")


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
    reproduce(Experiment.lpg_net, output, Budget.demo, data, seed)


def reproduce(
    experiment: Annotated[Experiment, typer.Argument(help="What to reproduce.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to.", file_okay=False)
    ] = _OUTPUT,
    budget: Annotated[Budget, typer.Option(help="Seconds, minutes or hours.")] = Budget.full,
    data: Images = None,
    seed: Seed = 0,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only compare results, by default those in docs/results, with their document "
            "(guarantees) or targets (lista, pudle).",
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
    fastunroll reproduce pudle --budget quick --data photographs
    ```
    """
    if models and (check or experiment is not Experiment.lista):
        raise ValueError("--models needs lista, and no --check")
    if check:
        _check(experiment, _RESULTS / experiment.value if output == _OUTPUT else output)
        return
    if experiment is Experiment.lista:
        _lista(output, budget, seed, models)
        return
    if experiment is Experiment.pudle:
        _pudle(output, budget, data, seed)
        return
    if experiment is Experiment.guarantees:
        _guarantees(output, budget, seed)
        return
    from fastunroll.experiments import lpg_net

    with on_interrupt(f"{output} keeps the finished parts; the same command goes on from there"):
        results = lpg_net.run(output, budget=budget.value, seed=seed, data=data)
    console = Console()
    console.print(lpg_net.summary_table(results))
    for claim in results.claims:
        verdict = "holds:" if claim.holds else "does not hold:"
        console.print(verdict, claim.text, style="dim", soft_wrap=True)
    typer.echo(f"report: {results.report}")


def _check(experiment: Experiment, folder: Path) -> None:
    """Compare the results in a folder with their document, or with their targets."""
    if experiment is Experiment.lpg_net:
        raise ValueError(f"--check has no meaning for {experiment.value}")
    from fastunroll.experiments import guarantees
    from fastunroll.experiments.targets import RESULTS

    if not (folder / RESULTS).is_file():
        raise FileNotFoundError(f"--output must be a folder of results: no {RESULTS} in {folder}")
    if experiment is not Experiment.guarantees:
        _check_targets(folder)
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


def _check_targets(folder: Path) -> None:
    """Compare results with their targets, line by line."""
    from fastunroll.experiments.targets import check

    outcomes = check(folder)
    for outcome in outcomes:
        typer.echo(outcome.line)
    missed = sum(not outcome.met for outcome in outcomes)
    typer.echo(f"{len(outcomes) - missed} of {len(outcomes)} targets reached")
    if missed:
        raise typer.Exit(FAILED)
