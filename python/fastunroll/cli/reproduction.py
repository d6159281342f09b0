"""``fastunroll demo`` and ``reproduce``: the experiments of the papers, with their report."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastunroll.cli.common import Images, Seed, on_interrupt


class Experiment(str, Enum):
    """An experiment that can be reproduced."""

    lpg_net = "lpg-net"


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
    ] = Path("fastunroll-reproduction"),
    budget: Annotated[Budget, typer.Option(help="Seconds, minutes or hours.")] = Budget.full,
    data: Images = None,
    seed: Seed = 0,
) -> None:
    """Reproduce the experiments of a paper, and write a report.

    ```
    fastunroll reproduce lpg-net
    fastunroll reproduce lpg-net --budget demo --output quick
    ```
    """
    from fastunroll.experiments import lpg_net

    with on_interrupt(f"{output} keeps the finished parts; the same command goes on from there"):
        results = lpg_net.run(output, budget=budget.value, seed=seed, data=data)
    console = Console()
    console.print(lpg_net.summary_table(results))
    for claim in results.claims:
        verdict = "holds:" if claim.holds else "does not hold:"
        console.print(verdict, claim.text, style="dim", soft_wrap=True)
    typer.echo(f"report: {results.report}")
