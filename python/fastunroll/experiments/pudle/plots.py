"""Figures of the PUDLE report: curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fastunroll.experiments.dictionary_plots import image_row
from fastunroll.experiments.plots import STYLE, panels
from fastunroll.experiments.pudle import published
from fastunroll.experiments.pudle.denoising import DEC, HARD, LEAST_SQUARES
from fastunroll.experiments.pudle.local import line
from fastunroll.experiments.pudle.pictures import agreement, codes, filters
from fastunroll.experiments.pudle.summary import Results

_GRADIENTS = {"dec": "#0072B2", "ae-lasso": "#E69F00", "ae-ls": "#D55E00"}
_METHODS = {
    "plain": "#D55E00",
    "decay": "#0072B2",
    "hard": "#009E73",
    "NOODL": "#CC79A7",
    "alternating": "#888888",
}
_KINDS = {LEAST_SQUARES: "#D55E00", DEC: "#0072B2", HARD: "#009E73"}
_GOALS = {
    "lasso": "to $\\hat{g}$: lasso at D",
    "biased": "to g*: lasso at the true D",
    "true": "to $\\tilde{g}$: true codes",
}
_DIAMOND: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "linestyle": "none"}
_PUBLISHED = Line2D([], [], color="#333333", label="published", **_DIAMOND)


def figures(
    results: Results, models: Path, shown: Mapping[str, Path], pictures: Mapping[str, NDArray[Any]]
) -> dict[str, Figure]:
    """Draw every figure, by name.

    Parameters
    ----------
    results : mapping
        Content of ``results.json``.
    models : Path
        Folder of the dictionaries of Figs. 5 and 6.
    shown : mapping of str to Path
        Titles and files of convolutional dictionaries.
    pictures : mapping of str to ndarray
        Titles and one image in all its versions.
    """
    draws: dict[str, Callable[[], Figure]] = {
        "codes": lambda: _codes(results["gradients"]),
        "gradients": lambda: _gradients(results["gradients"]),
        "trainings": lambda: _trainings(results["trainings"]),
        "recovery": lambda: _recovery(results),
        "agreement": lambda: agreement(results, models, _METHODS),
        "sparse-codes": lambda: codes(results, models, _METHODS),
        "denoising": lambda: _denoising(results["denoising"]),
        "filters": lambda: filters(shown),
        "cscnet": lambda: _cscnet(results["cscnet"]),
        "images": lambda: image_row(pictures),
    }
    with matplotlib.rc_context(STYLE):
        return {name: draw() for name, draw in draws.items()}


def _codes(found: Mapping[str, Any]) -> Figure:
    """Distance of the codes from their limit against the layer, with the fitted line."""
    layers, errors = found["layers"], found["codes"]
    slope, start = line(layers, errors)
    figure, axes = panels(1, (5.2, 3.6))
    axes.plot(layers, errors, "o-", color="#333333", label="mean over the samples")
    fit = np.exp(start + slope * np.array(layers))
    axes.plot(layers, fit, ":", color="#D55E00", label=f"slope {slope:.4f} per layer")
    axes.set(yscale="log", xlabel="layers T", ylabel="$||z_T - \\hat{z}||$")
    axes.set_title("codes against the solution of the lasso")
    axes.legend()
    return figure


def _gradients(found: Mapping[str, Any]) -> Figure:
    """Distances of the three gradients from three goals against the layer."""
    figure, row = panels(len(_GOALS), (10.5, 3.8))
    for axes, (goal, title) in zip(row, _GOALS.items(), strict=True):
        for name, colour in _GRADIENTS.items():
            axes.plot(
                found["layers"],
                found["gradients"][goal][name],
                "o-",
                color=colour,
                markersize=3.5,
                label=f"g_{name}",
            )
        axes.set(yscale="log", xlabel="layers T", title=title)
    row[0].set_ylabel("distance of the gradient")
    _legend(figure, row[0], 3)
    return figure


def _trainings(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Distance of the dictionary from the true one against the epoch."""
    figure, row = panels(len(found), (max(5.6, 4.4 * len(found)), 3.9))
    for axes, (depth, curves) in zip(np.atleast_1d(row), found.items(), strict=True):
        for name, colour in _GRADIENTS.items():
            curve = curves[name]
            axes.plot(curve["epochs"], curve["errors"], color=colour, label=f"g_{name}")
            _published(
                axes, curve["epochs"][-1], published.TRAININGS.get(depth, {}).get(name), colour
            )
        axes.set(yscale="log", xlabel="epoch", title=f"T = {depth}")
    np.atleast_1d(row)[0].set_ylabel("$||D - \\tilde{D}||_F$")
    _legend(figure, np.atleast_1d(row)[0], 4, _PUBLISHED)
    return figure


def _recovery(results: Results) -> Figure:
    """Relative error of D against the samples, one panel per sparsity."""
    batch, found = results["settings"]["recovery"]["batch_size"], results["recovery"]
    figure, row = panels(len(found), (max(5.6, 3.9 * len(found)), 4.2))
    for axes, (sparsity, curves) in zip(np.atleast_1d(row), found.items(), strict=True):
        for name, colour in _METHODS.items():
            curve = curves[name]
            updates = np.array(curve["samples"]) / batch
            axes.plot(updates, curve["errors"], color=colour, label=name)
            end = published.RECOVERY.get(sparsity, {}).get(name)
            _published(axes, updates[-1], end, colour)
        axes.set(yscale="log", xlabel=f"samples seen / {batch}", title=f"{sparsity}-sparse")
    np.atleast_1d(row)[0].set_ylabel("relative error of D")
    _legend(figure, np.atleast_1d(row)[0], 6, _PUBLISHED)
    return figure


def _published(axes: Axes, x: float, y: float | None, colour: str) -> None:
    """A published number at the end of a curve."""
    if y is not None:
        axes.plot(x, y, color=colour, clip_on=False, zorder=4, **_DIAMOND)


def _denoising(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """PSNR of the crops against lambda, or the threshold, ours and published."""
    figure, (left, right) = panels(2, (8.4, 3.9))
    for kind, rows in found.items():
        axes = right if kind == HARD else left
        ours = {float(value): row["paper"] for value, row in rows.items()}
        known = published.DENOISING[kind]
        theirs = {float(value): known[value] for value in rows if value in known}
        axes.plot(ours.keys(), ours.values(), "o-", color=_KINDS[kind], label=f"{kind}, ours")
        axes.plot(
            theirs.keys(),
            theirs.values(),
            "D:",
            color=_KINDS[kind],
            markerfacecolor="white",
            label=f"{kind}, published",
        )
    low = min(left.get_ylim()[0], right.get_ylim()[0])
    high = max(left.get_ylim()[1], right.get_ylim()[1])
    for axes, label in ((left, "lambda"), (right, "threshold")):
        axes.set(xlabel=label, ylim=(low - 0.5, high), xticks=axes.lines[0].get_xdata())
        axes.legend(loc="lower right")
    left.set_ylabel("PSNR of crops (dB), peak = maximum")
    left.set_title("soft threshold")
    right.set_title("hard threshold")
    return figure


def _cscnet(found: Mapping[str, Any]) -> Figure:
    """PSNR of held-out crops during the training, and that of all test images at its end."""
    curve, score = found["training"]["curve"], found["scores"]["standard"]
    figure, axes = panels(1, (6.4, 3.8))
    axes.plot(curve["step"], curve["PSNR dB"], "o-", color="#D55E00", label="held-out crops")
    axes.plot(curve["step"][-1], score, "s", color="#0072B2", label=f"test images: {score:.2f} dB")
    axes.axhline(published.CSCNET, color="#333333", linewidth=1, linestyle=":")
    axes.annotate(
        f"published, BSD68: {published.CSCNET:.2f} dB",
        (0.98, published.CSCNET),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=9,
    )
    axes.set(xlabel="step", ylabel="PSNR (dB), peak 1", title="CSCNet-shaped model")
    shown = [value for value in curve["PSNR dB"] if value > score - 3]
    axes.set_ylim(min(*shown, score) - 0.2, max(published.CSCNET, *shown, score) + 0.4)
    axes.legend()
    return figure


def _legend(figure: Figure, axes: Axes, columns: int, *more: Artist) -> None:
    handles: list[Artist] = [*axes.get_legend_handles_labels()[0], *more]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
