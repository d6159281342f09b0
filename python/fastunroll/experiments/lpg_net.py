"""Experiments of the LPG-Net paper, Figs. 2 to 8.

Source: Wang, Xu, Zhang, "A Learnable Proximal Gradient Unrolling Network for Sparse Learning". The
paper prints curves without numbers, so its claims are what is compared with our data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fastunroll.experiments.claims import Claim, judge
from fastunroll.experiments.denoising import denoising
from fastunroll.experiments.latency import latency, one_thread
from fastunroll.experiments.report import tables, write_report
from fastunroll.experiments.settings import Settings, settings_of
from fastunroll.experiments.store import Store, machine_facts
from fastunroll.experiments.synthetic import (
    ABLATIONS,
    FULL,
    Bench,
    calibration,
    comparison,
    objective,
    sweep,
    train_variant,
)
from fastunroll.io import atomic_write, load_model, save_model
from fastunroll.nn import LPGNet


@dataclass(frozen=True)
class LpgNetResults:
    """All results of one run.

    Attributes
    ----------
    settings : Settings
    budget : str
    facts : dict
        Machine, versions and date.
    parts : dict
        Result of each part: ablation, comparison, objective, sparsity, snr, latency, calibration
        and denoising.
    pictures : dict of ndarray
        One test image: clean, noisy, and denoised by every method.
    claims : list of Claim
        The paper's claims beside what our data say.
    report : Path
        The HTML report.
    """

    settings: Settings
    budget: str
    facts: dict[str, str]
    parts: dict[str, dict[str, Any]]
    pictures: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
    claims: list[Claim]
    report: Path


@one_thread()
def run(
    output: Path,
    *,
    budget: str = "demo",
    seed: int = 0,
    data: Path | None = None,
    progress: bool = True,
) -> LpgNetResults:
    """Run all experiments and write the report, on one thread: the batches are small.

    A part that is finished with the same settings is not computed again, so an interrupted run goes
    on where it stopped.

    Parameters
    ----------
    output : Path
        Folder of the results: ``report.html``, ``figures/``, ``tables/``, ``models/``, ``parts/``.
    budget : {"quick", "demo", "full"}
        Seconds, minutes, or hours.
    seed : int
        Seed of all random numbers.
    data : Path, optional
        Folder of images, see `fastunroll.data.load_images`.
    progress : bool
        Say on standard error what is going on.

    Returns
    -------
    LpgNetResults

    Raises
    ------
    ValueError, OSError
        If an argument does not fit, or a file cannot be read or written.
    """
    settings = settings_of(budget, seed)
    output = Path(output)
    described = {**asdict(settings), "data": None if data is None else str(data)}
    store = Store(output / "parts", described)
    bench = Bench(settings)
    console = Console(stderr=True, quiet=not progress)

    def part(name: str, compute: Callable[[], dict[str, Any]], *files: Path) -> dict[str, Any]:
        console.print(f"[bold]{name}[/bold]")
        return store.part(name.replace(" ", "-"), compute, files)

    rows = {}
    for variant in ABLATIONS:
        path = _model_path(output, variant)

        def train(variant: str = variant, path: Path = path) -> dict[str, Any]:
            network, row = train_variant(bench, variant, progress)
            save_model(network, path)
            return row

        rows[variant] = part(f"train {variant}", train, path)
    network = load_model(_model_path(output, FULL))
    assert isinstance(network, LPGNet)

    results_of: dict[str, Callable[[], dict[str, Any]]] = {
        "comparison": lambda: comparison(bench, network),
        "objective": lambda: objective(bench, network),
        "sparsity": lambda: sweep(bench, network, "density", settings.densities),
        "snr": lambda: sweep(bench, network, "snr_db", settings.snrs),
        "latency": lambda: latency(bench, network),
        "calibration": lambda: calibration(bench, network),
    }
    parts = {"ablation": rows, **{name: part(name, f) for name, f in results_of.items()}}

    pictures_path = output / "parts" / "pictures.npz"
    patch_model = _model_path(output, "patches")

    def denoise() -> dict[str, Any]:
        patch_network, result, pictures = denoising(settings, data, progress)
        save_model(patch_network, patch_model)
        with atomic_write(pictures_path) as temporary:
            names, images = list(pictures), list(pictures.values())
            np.savez_compressed(temporary, names=names, images=np.stack(images))
        return result

    parts["denoising"] = part("denoising", denoise, patch_model, pictures_path)
    with np.load(pictures_path) as archive:
        pictures = dict(zip(archive["names"].tolist(), archive["images"], strict=True))

    results = LpgNetResults(
        settings,
        budget,
        machine_facts(),
        parts,
        pictures,
        judge(parts),
        output / "report.html",
    )
    write_report(results, output)
    return results


def summary_table(results: LpgNetResults) -> Table:
    """The main table, for the terminal."""
    main = tables(results)["comparison"][0]
    depth = results.settings.n_layers
    table = Table(title=f"{main.title} ({depth} layers or iterations)")
    for index, name in enumerate(main.header):
        table.add_column(name, justify="right" if index else "left")
    for row in main.rows:
        table.add_row(*row)
    return table


def _model_path(output: Path, name: str) -> Path:
    return output / "models" / f"{name.replace(' ', '-')}.safetensors"
