"""The report of the LPG-Net experiments: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import numpy as np
from matplotlib.figure import Figure

from fastunroll.experiments.plots import figures
from fastunroll.experiments.store import write_csv, write_text
from fastunroll.io import atomic_write

if TYPE_CHECKING:
    from fastunroll.experiments.lpg_net import LpgNetResults

_DPI = 160


class Section(NamedTuple):
    """A figure with its text and the tables behind it."""

    name: str
    title: str
    caption: str
    alternative: str
    """What the picture shows, for people who cannot see it."""


_SECTIONS = (
    Section(
        "objective",
        "Objective per layer",
        "LASSO objective F(x) = ½‖Ax - b‖² + λ‖x‖₁, mean over the test samples, with the same λ "
        "for all. Lower is better. LPG-Net is trained to find the true codes and not to minimise "
        "F, so its curve may level off, or even rise, while its error still falls.",
        "Objective against the layer for LPG-Net, ISTA, FISTA and ADMM",
    ),
    Section(
        "sparsity",
        "Error and support against sparsity",
        "Full lines: one network and one set of parameters for the whole range of noise and "
        "sparsity. Dashed: the classical methods retuned for each point with validation data of "
        "that point, which in practice one seldom has. Left: lower is better. Right: higher is "
        "better; every exact non-zero counts, so many tiny false ones make F1 low even where the "
        "error is small.",
        "Mean absolute error and F1 against the share of non-zeros",
    ),
    Section(
        "snr",
        "Error against noise",
        "Lines as above. Lower is better; noise falls from left to right.",
        "Mean absolute error against the signal-to-noise ratio",
    ),
    Section(
        "latency",
        "Time for one sample",
        "Boxes hold the middle half of the calls, whiskers go from the 5th to the 95th "
        "percentile; the number is the median. All run one sample at a time on one thread and in "
        "turns. ISTA, FISTA and ADMM do as many iterations as LPG-Net has layers; they are calls "
        "of the solvers, with their set-up (Lipschitz constant or factor) and their duality gap. "
        "“ISTA, layers only” is the same kernel as LPG-Net's without any of that. Coordinate "
        "descent runs to scikit-learn's tolerance.",
        "Box plot of the time for one sample for every method",
    ),
    Section(
        "ablation",
        "What each part of LPG-Net is worth",
        "Mean absolute error on the test set after the same training with one part changed. The "
        "last bar has the paper's squared error in the loss; the others have the absolute error, "
        "which is what is compared here.",
        "Bars of the mean absolute error of LPG-Net and its ablations",
    ),
    Section(
        "calibration",
        "Calibration of intervals",
        "Intervals around the non-zeros that LPG-Net finds; their width comes from one set of "
        "samples, their coverage from another. On the dotted line, an interval holds the truth as "
        "often as it claims.",
        "Empirical against nominal coverage, and the width of the intervals",
    ),
    Section(
        "denoising",
        "A real image",
        "Patches of a noisy photograph, sparse-coded over an overcomplete DCT and averaged. "
        "LPG-Net and ISTA have the same depth. The network has never seen this image.",
        "A photograph, its noisy version, and two denoised ones",
    ),
)


class Listing(NamedTuple):
    """A table with text in its cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(results: LpgNetResults, output: Path) -> None:
    """Write ``report.html``, ``figures/*.png``, ``tables/*.csv`` and ``tables/tables.md``.

    Parameters
    ----------
    results : LpgNetResults
    output : Path
        Folder of the run.
    """
    pictures = {}
    for name, figure in figures(results.parts, results.pictures).items():
        pictures[name] = png(figure)
        with atomic_write(output / "figures" / f"{name}.png") as temporary:
            temporary.write_bytes(pictures[name])
    listings = tables(results)
    for name, found in listings.items():
        for index, listing in enumerate(found):
            suffix = f"-{index + 1}" if len(found) > 1 else ""
            write_csv(output / "tables" / f"{name}{suffix}.csv", listing.header, listing.rows)
    text = "\n".join(markdown(listing) for found in listings.values() for listing in found)
    write_text(output / "tables" / "tables.md", text)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastunroll.experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("lpg_net.html").render(
        results=results,
        main=listings["comparison"][0],
        sections=_SECTIONS,
        images={name: base64.b64encode(png).decode() for name, png in pictures.items()},
        listings=listings,
        settings=_flat(asdict(results.settings)),
    )
    write_text(results.report, page)


def tables(results: LpgNetResults) -> dict[str, list[Listing]]:
    """The tables behind each figure, and the main one (``"comparison"``)."""
    parts = results.parts
    sweeps = {
        "sparsity": ("density", ("MAE", "F1")),
        "snr": ("SNR dB", ("MAE", "F1")),
    }
    times = parts["latency"]["microseconds"]
    calibration = parts["calibration"]
    return {
        "comparison": [_main(results)],
        "objective": [
            _by_value(
                "Mean F(x_k)", "k", range(results.settings.n_layers + 1), parts["objective"]["F"]
            )
        ],
        **{
            name: [
                _by_value(score, label, parts[name]["values"], parts[name][score])
                for score in scores
            ]
            for name, (label, scores) in sweeps.items()
        },
        "latency": [
            _by_name(
                "Microseconds",
                "method",
                {
                    name: dict(
                        zip(
                            ("5 %", "25 %", "median", "75 %", "95 %"),
                            np.percentile(values, (5, 25, 50, 75, 95)).tolist(),
                            strict=True,
                        )
                    )
                    for name, values in times.items()
                },
            )
        ],
        "ablation": [_by_name("Variants", "variant", parts["ablation"])],
        "calibration": [
            _by_value(key.capitalize(), "nominal", calibration["levels"], calibration[key])
            for key in ("coverage", "half width")
        ],
        "denoising": [
            _by_name("Test patches and test images", "method", parts["denoising"]["scores"])
        ],
    }


def _main(results: LpgNetResults) -> Listing:
    """Scores, time and image quality of every method."""
    parts = results.parts
    codes, images = parts["comparison"]["scores"], parts["denoising"]["scores"]
    times = parts["latency"]["microseconds"]
    rows = {name: dict(row) for name, row in codes.items()}
    for name, row in images.items():
        rows.setdefault(name, {}).update(row)
    for name in codes:
        rows[name]["median µs"] = float(np.median(times[name]))
    return _by_name("Scores on test data, and time for one sample", "method", rows)


def _by_name(title: str, label: str, rows: Mapping[str, Mapping[str, float]]) -> Listing:
    """One row per name; what a row lacks stays empty."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    body = [
        [name, *(number(row[column]) if column in row else "" for column in columns)]
        for name, row in rows.items()
    ]
    return Listing(title, [label, *columns], body)


def _by_value(
    title: str, label: str, values: Sequence[float], curves: Mapping[str, Sequence[float]]
) -> Listing:
    """One row per value, one column per curve."""
    body = [[number(v) for v in row] for row in zip(values, *curves.values(), strict=True)]
    return Listing(title, [label, *curves], body)


def number(value: float) -> str:
    """Four significant digits, without an exponent where one can do without."""
    if isinstance(value, int):
        return str(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}" if digits < 8 else f"{value:.3e}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Names and values of nested settings, in words."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        words = prefix + name.replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, f"{words}: ")
        elif isinstance(value, (tuple, list)):
            rows.append((words, ", ".join(f"{x:g}" for x in value)))
        else:
            rows.append((words, f"{value:g}" if isinstance(value, float) else str(value)))
    return rows


def markdown(listing: Listing) -> str:
    """A table in Markdown, with its title."""
    rows = [listing.header, ["---"] * len(listing.header), *listing.rows]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"## {listing.title}", "", *lines, ""])


def png(figure: Figure) -> bytes:
    """Bytes of a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
