"""The typer application: every command and the options before it."""

from __future__ import annotations

from typing import Annotated

import typer

from fastunroll import __version__
from fastunroll.cli.apply import denoise, encode
from fastunroll.cli.bench import bench
from fastunroll.cli.common import Application
from fastunroll.cli.dictionary import learn_dictionary
from fastunroll.cli.filters import learn_filters
from fastunroll.cli.info import info
from fastunroll.cli.networks import evaluate, train
from fastunroll.cli.reproduction import demo, reproduce

app = typer.Typer(cls=Application, no_args_is_help=True, rich_markup_mode="markdown")
COMMANDS = (
    demo,
    train,
    learn_dictionary,
    learn_filters,
    evaluate,
    encode,
    denoise,
    reproduce,
    bench,
    info,
)
for command in COMMANDS:
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fastunroll {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error arose.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train and run unrolled proximal-gradient networks.

    Begin with the demo; it takes a few minutes and explains itself in a report:

    ```
    fastunroll demo
    ```

    Then train a network of your own, and use it:

    ```
    fastunroll train --output run
    fastunroll evaluate run/model.safetensors
    fastunroll encode run/model.safetensors measurements.npy codes.npy
    ```
    """
