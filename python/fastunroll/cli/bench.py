"""``fastunroll bench``: speed against other tools, and the targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from fastunroll.cli.common import FAILED
from fastunroll.io import atomic_write


def bench(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write to.", file_okay=False)
    ] = Path("fastunroll-bench"),
    targets: Annotated[
        Path | None,
        typer.Option(help="TOML file of targets to measure as well.", exists=True, dir_okay=False),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Measure the targets alone; fail if one is missed."),
    ] = False,
    update: Annotated[
        list[Path] | None,
        typer.Option(help="Document whose tables to refresh.", exists=True, dir_okay=False),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of each case.", min=2)] = 20,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny problems, two rounds: shows that all runs.")
    ] = False,
) -> None:
    """Measure speed against PyTorch, ONNX Runtime, NumPy, scikit-learn and SPAMS.

    Keep the machine idle meanwhile. It needs the extra `bench`, and takes about a quarter of an
    hour, most of it for `torch.compile` to compile. Tables, figures and all numbers go to the
    folder of the output.

    ```
    fastunroll bench
    fastunroll bench --check --targets benchmarks/targets.toml
    ```
    """
    from fastunroll.benchmarks import plots, suite, tables
    from fastunroll.benchmarks.targets import load_targets

    if check and targets is None:
        raise ValueError("--check needs --targets")
    wanted = [] if targets is None else load_targets(targets)
    report = suite.run(
        {} if check else suite.standard_jobs(),
        wanted,
        rounds=rounds,
        quick=quick,
        compare_recovery=not check,
        progress=lambda line: typer.echo(line, err=True),
    )
    with atomic_write(output / "report.json") as temporary:
        temporary.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    parts = tables.sections(report)
    document = "\n\n".join(f"## {name}\n\n{part}" for name, part in parts.items() if part)
    with atomic_write(output / "report.md") as temporary:
        temporary.write_text(f"{document}\n")
    plots.draw(report, output)
    for path in update or []:
        tables.refresh(path, parts)
    if not check:
        Console().print(Markdown(document))
    for result in report.targets:
        typer.echo(result.line)
    typer.echo(f"all figures: {output}")
    if check and not all(result.met for result in report.targets):
        raise typer.Exit(FAILED)
