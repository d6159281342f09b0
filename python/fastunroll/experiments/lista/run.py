"""All parts of the experiment in turn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from fastunroll.experiments.lista.document import DOCUMENT, document
from fastunroll.experiments.lista.plots import figures
from fastunroll.experiments.lista.settings import settings_of
from fastunroll.experiments.lista.studies import study
from fastunroll.experiments.lista.training import part_name, train_part
from fastunroll.experiments.report import png
from fastunroll.experiments.store import machine_facts, write_text
from fastunroll.experiments.targets import RESULTS
from fastunroll.io import atomic_write
from fastunroll.nn.catalogue import catalogue


def run(
    output: Path, *, budget: str = "quick", seed: int = 0, progress: bool = True
) -> dict[str, Any]:
    """Train all networks, study them, and write ``results.json``, ``report.md`` and ``figures/``.

    Parameters
    ----------
    output, budget, seed, progress
        As in `train`.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    ValueError, OSError
        As in `train`.
    """
    s = settings_of(budget, seed)
    networks = train(output, budget=budget, seed=seed, progress=progress)
    results: dict[str, Any] = {
        "budget": budget,
        "settings": json.loads(json.dumps(asdict(s))),
        "facts": machine_facts(),
        "networks": networks,
        **study(output, s, networks, Console(stderr=True, quiet=not progress)),
    }
    for name, figure in figures(results).items():
        with atomic_write(output / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(png(figure))
    write_text(output / RESULTS, json.dumps(results, indent=1))
    write_text(output / DOCUMENT, document(results))
    return results


def train(
    output: Path,
    *,
    budget: str = "quick",
    seed: int = 0,
    models: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Train all networks of a budget, or some, and score them; see `train_part`.

    A network that is finished with the same settings is not trained again, and an interrupted
    training goes on where it stopped.

    Parameters
    ----------
    output : Path
        Folder of the results.
    budget : {"quick", "full"}
        A quarter of an hour, or about one and a half hours.
    seed : int
        Seed of all random numbers.
    models : sequence of str
        Names of the networks; all by default.
    progress : bool
        Say on standard error what is going on.

    Returns
    -------
    dict of str to dict
        Results by `part_name`.

    Raises
    ------
    ValueError, OSError
        If an argument does not fit, or a file cannot be read or written.
    """
    s = settings_of(budget, seed)
    if unknown := set(models) - set(catalogue):
        raise ValueError(f"unknown network {min(unknown)!r}; known: {', '.join(catalogue)}")
    console = Console(stderr=True, quiet=not progress)
    found = {}
    for training in s.trainings:
        if models and training.model not in models:
            continue
        for variant in training.variants:
            name = part_name(training.model, variant)
            console.print(f"[bold]{name}[/bold]")
            found[name] = train_part(output, s, training, variant, progress=progress)
            console.print(f"{found[name]['NMSE']:.2f} dB in {found[name]['seconds']:.0f} s")
    return found
