"""What the commands share: exit codes, one-line errors, tables and option types."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from fastunroll.io import atomic_write

FAILED = 1
INTERRUPTED = 130

ModelFile = Annotated[
    Path,
    typer.Argument(
        help="A trained network, model.safetensors.", exists=True, dir_okay=False, metavar="MODEL"
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of images; by default FASTUNROLL_DATA, else the images in scikit-image.",
        exists=True,
        file_okay=False,
        rich_help_panel="Image patches",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)]


class Application(TyperGroup):
    """The command group: it turns the errors of its commands into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; with ``--debug``, errors keep their traceback."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except KeyboardInterrupt:
            _stop("interrupted: nothing was written", INTERRUPTED)
        except BrokenPipeError:
            raise
        except (FloatingPointError, ImportError, OSError, TypeError, ValueError) as error:
            if ctx.params["debug"]:
                raise
            _stop(f"error: {error}", FAILED)


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """Callback of an option that takes one of some names; a usage error lists them."""
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known:
            raise typer.BadParameter(f"unknown name '{name}'; known: {', '.join(known)}.")
        return name

    return check


@contextmanager
def on_interrupt(kept: str) -> Iterator[None]:
    """Say what is kept when the user interrupts the ``with`` block."""
    try:
        yield
    except KeyboardInterrupt:
        _stop(f"interrupted: {kept}", INTERRUPTED)


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run, or require that they are those of the run begun there."""
    settings = json.loads(json.dumps(settings, default=str))
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2))
        return
    kept = json.loads(path.read_text())
    differing = [name for name in settings if kept.get(name) != settings[name]]
    if differing:
        changes = ", ".join(f"{name} {kept.get(name)}" for name in differing)
        raise ValueError(f"{path.parent} is a run with {changes}: give that, or another --output")


def refuse_options(context: typer.Context, unused: Iterable[str], what: str) -> None:
    """Refuse options that the user gave and that ``what`` does not look at."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in unused and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{option.opts[0]} has no meaning for {what}.")


def print_table(title: str, rows: Mapping[str, object]) -> None:
    """Print names and values to the terminal."""
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    typer.echo(title)
    Console().print(table)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.secho(f"warning: {_one_line(message)}", fg="yellow", err=True)


def _stop(message: str, code: int) -> NoReturn:
    typer.secho(_one_line(message), fg="red", err=True)
    raise typer.Exit(code)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
