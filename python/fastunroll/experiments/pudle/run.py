"""All parts of the experiment in turn, its results and its report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from fastunroll.experiments.latency import one_thread
from fastunroll.experiments.pudle.denoising import DEC, LEAST_SQUARES
from fastunroll.experiments.pudle.document import DOCUMENT, document
from fastunroll.experiments.pudle.parts import Parts, filters_name
from fastunroll.experiments.pudle.plots import figures
from fastunroll.experiments.pudle.settings import settings_of
from fastunroll.experiments.pudle.summary import best, summary
from fastunroll.experiments.report import png
from fastunroll.experiments.store import machine_facts, write_text
from fastunroll.experiments.targets import RESULTS
from fastunroll.io import atomic_write

_SHOWN_IMAGE = 10
"""Number of the test image that is shown, or the last one."""


@one_thread()
def run(
    output: Path,
    *,
    budget: str = "quick",
    seed: int = 0,
    data: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run all experiments and write ``results.json``, ``report.md`` and ``figures/``.

    A part that is finished with the same settings is not computed again, and an interrupted run
    goes on where it stopped.

    Parameters
    ----------
    output : Path
        Folder of the results, with ``parts/``, ``models/`` and ``runs/``.
    budget : {"quick", "full"}
        Minutes, or hours.
    seed : int
        Seed of all random numbers.
    data : Path, optional
        Folder of images, see `fastunroll.data.load_images`.
    progress : bool
        Say on standard error what is going on.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    ValueError, OSError
        If an argument does not fit, images are too few or too small, or a file cannot be read or
        written.
    """
    s, output = settings_of(budget, seed), Path(output)
    console = Console(stderr=True, quiet=not progress)
    parts = Parts(output, s, data, progress, lambda name: console.print(f"[bold]{name}[/bold]"))
    index = min(_SHOWN_IMAGE, len(parts.pictures[1]) - 1)  # reads all images, before the long parts
    results: dict[str, Any] = {
        "budget": budget,
        "settings": json.loads(json.dumps(asdict(s))),
        "facts": {key: value for key, value in machine_facts().items() if key != "system"},
        "gradients": parts.gradients(),
        "speed": parts.speed(),
        "recovery": parts.recovery(),
        "trainings": parts.trainings(),
        "denoising": parts.denoising(),
        "cscnet": parts.cscnet(),
    }
    chosen = {kind: best(results["denoising"][kind]) for kind in (LEAST_SQUARES, DEC)}
    results["whole images"] = {
        f"{kind}, {value}": parts.whole_images(kind, value) for kind, value in chosen.items()
    }
    results["summary"] = summary(results)
    shown = {kind: filters_name(kind, float(value)) for kind, value in chosen.items()}
    pictures = parts.denoised({**shown, "CSCNet": "cscnet"}, index)
    paths = {kind: parts.model(name) for kind, name in shown.items()}
    for name, figure in figures(results, output / "models", paths, pictures).items():
        with atomic_write(output / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(png(figure))
    write_text(output / RESULTS, json.dumps(results, indent=1))
    write_text(output / DOCUMENT, document(results))
    return results
