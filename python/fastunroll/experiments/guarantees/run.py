"""All parts of the experiment in turn, its results and its document."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fastunroll.experiments.claims import Claim
from fastunroll.experiments.guarantees import parts
from fastunroll.experiments.guarantees.claims import judge
from fastunroll.experiments.guarantees.document import DOCUMENT, document
from fastunroll.experiments.guarantees.fourier import fourier_example
from fastunroll.experiments.guarantees.networks import NETWORKS
from fastunroll.experiments.guarantees.plots import figures
from fastunroll.experiments.guarantees.settings import GuaranteeSettings, settings_of
from fastunroll.experiments.latency import one_thread
from fastunroll.experiments.report import png
from fastunroll.experiments.store import Store, machine_facts, write_text
from fastunroll.io import atomic_write

RESULTS = "results.json"


@one_thread()
def run(
    output: Path, *, budget: str = "quick", seed: int = 0, progress: bool = True
) -> list[Claim]:
    """Run all experiments and write results, figures and the document, on one thread.

    A part that is finished with the same settings is not computed again, so an interrupted run goes
    on where it stopped.

    Parameters
    ----------
    output : Path
        Folder of the results: ``README.md``, ``results.json``, ``figures/``, ``parts/``.
    budget : {"quick", "full"}
        Minutes, or half an hour.
    seed : int
        Seed of all random numbers.
    progress : bool
        Say on standard error what is going on.

    Returns
    -------
    list of Claim
        The paper's claims beside what our data say.

    Raises
    ------
    ValueError, OSError
        If an argument does not fit, or a file cannot be read or written.
    """
    s = settings_of(budget, seed)
    output = Path(output)
    store = Store(output / "parts", asdict(s))
    console = Console(stderr=True, quiet=not progress)

    def part(name: str, compute: Callable[[], dict[str, Any]], *files: Path) -> dict[str, Any]:
        console.print(f"[bold]{name}[/bold]")
        return store.part(name.replace(" ", "-"), compute, files)

    pictures_path = output / "parts" / "pictures.npz"

    def fourier() -> dict[str, Any]:
        result, pictures = fourier_example(s.fourier, seed)
        with atomic_write(pictures_path) as temporary:
            np.savez_compressed(
                temporary, names=list(pictures), images=np.stack(list(pictures.values()))
            )
        return result

    results: dict[str, Any] = {
        "budget": budget,
        "settings": json.loads(json.dumps(asdict(s))),
        "facts": machine_facts(),
        "descents": {
            name: part(f"descent {name}", partial(parts.descents, s, name)) for name in NETWORKS
        },
        "fourier": part("fourier", fourier, pictures_path),
        "kernels": {
            str(count): part(f"kernels {count}", partial(parts.kernels, s, count))
            for count in s.kernel_samples
        },
        "hessians": {
            str(width): part(f"hessians {width}", partial(parts.hessians, s, width))
            for width in s.hessian_widths
        },
        "fits": {str(width): _fits(s, width, part) for width in s.widths},
    }
    with np.load(pictures_path) as archive:
        pictures: dict[str, NDArray[Any]] = dict(
            zip(archive["names"].tolist(), archive["images"], strict=True)
        )
    for name, figure in figures(results, pictures).items():
        with atomic_write(output / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(png(figure))
    write_text(output / RESULTS, json.dumps(results, indent=1))
    write_text(output / DOCUMENT, document(results))
    return judge(results)


def check(output: Path) -> list[str]:
    """Lines that follow from the results in a folder and that its document does not have.

    Raises
    ------
    FileNotFoundError
        If there are no results or no document.
    """
    results = json.loads((Path(output) / RESULTS).read_text(encoding="utf-8"))
    said = (Path(output) / DOCUMENT).read_text(encoding="utf-8").splitlines()
    return [line for line in document(results).splitlines() if line not in said]


def _fits(
    s: GuaranteeSettings, width: int, part: Callable[..., dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Training and test losses of all networks of a width, by the number of samples."""
    rates = part(f"learning rates {width}", partial(parts.tune, s, width))
    found = {
        str(count): part(f"fit {width} {count}", partial(parts.fit, s, width, count, rates))
        for count in s.samples
    }
    return {"learning rates": rates, **found}
