"""Figures of the report on the LISTA family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fastunroll.experiments.lista.baselines import LEAST_SQUARES
from fastunroll.experiments.lista.names import PROBLEMS, title
from fastunroll.experiments.lista.tables import Results, of_problem
from fastunroll.experiments.plots import STYLE, panels, plain_ticks

_FAMILIES: dict[str, tuple[str, Any]] = {
    "ISTA": ("#999999", "-"),
    "FISTA": ("#999999", "--"),
    "lista": ("#000000", "-"),
    "lista-tied": ("#000000", ":"),
    "lista-ss": ("#000000", "--"),
    "lista-cp": ("#0072B2", "-"),
    "lista-cpss": ("#0072B2", "--"),
    "lista-mcp": ("#0072B2", "-."),
    "lista-scad": ("#0072B2", (0, (5, 1))),
    "tilista": ("#56B4E9", "-"),
    "tilista-ss": ("#56B4E9", "--"),
    "alista": ("#D55E00", "-"),
    "alista-ss": ("#D55E00", "--"),
    "na-alista": ("#D55E00", ":"),
    "step-lista": ("#999999", ":"),
    "glista": ("#0072B2", ":"),
    "liht": ("#E69F00", "-"),
    "liht-cp": ("#E69F00", "--"),
    "tista": ("#009E73", "-"),
    "lamp": ("#009E73", "--"),
    "admm-csnet": ("#E69F00", ":"),
    "hyperlista": ("#CC79A7", "-"),
    "hyperlista-plain": ("#CC79A7", "--"),
}
"""Colour and line of each method; one colour for its relatives, dashes for support selection."""

_POINTS = 72 * 0.8
"""Points that an inch of a figure's height leaves for the axes."""

_COLOURS = ("#CC79A7", "#0072B2", "#D55E00", "#009E73")
_LABELS = {
    "density": "density of the codes",
    "variance": "variance of the non-zeros",
    "SNR": "signal-to-noise ratio (dB)",
    "perturbation": "std of the error of A",
}


def figures(results: Results) -> dict[str, Figure]:
    """Draw every figure, by name."""
    noisy = [name for name in results["baselines"] if name.startswith("snr")]
    draws: dict[str, Callable[[], Figure]] = {
        "layers": lambda: _layers(results, ["noiseless"], (8.2, 6.4)),
        "noise": lambda: _layers(results, noisy, (4.3 * len(noisy), 4.6)),
        "parameters": lambda: _parameters(results),
        "coupling": lambda: _coupling(results["coupling"]),
        "coherence": lambda: _coherence(results["coherence"]),
        "mismatch": lambda: _mismatch(results["mismatch"]),
        "robust": lambda: _robust(results["robust"]),
    }
    with matplotlib.rc_context(STYLE):
        return {name: draw() for name, draw in draws.items()}


def _layers(results: Results, variants: Sequence[str], size: tuple[float, float]) -> Figure:
    """NMSE against the layer, one curve per method, with its name at its end."""
    figure, found = panels(len(variants), size)
    for axes, variant in zip(np.atleast_1d(found), variants, strict=True):
        rows = of_problem(results, variant)
        for name, row in rows.items():
            colour, line = _FAMILIES[name]
            axes.plot(row["layers"], color=colour, linestyle=line, linewidth=1.5)
        floor = results["baselines"][variant][LEAST_SQUARES]["NMSE"]
        ends = {title(name): row["layers"][-1] for name, row in rows.items()}
        colours = {title(name): _FAMILIES[name][0] for name in rows}
        if floor > 1.5 * min(ends.values()):  # without noise, far below everything
            axes.axhline(floor, color="#333333", linewidth=1, linestyle=":")
            ends["support known"] = floor
        last = len(next(iter(rows.values()))["layers"]) - 1
        _end_labels(axes, last, ends, colours, 10 / (size[1] * _POINTS))
        axes.set(xlabel="layer or iteration", ylabel="NMSE (dB)", title=PROBLEMS[variant])
        axes.set_xlim(0, last)
    return figure


def _end_labels(
    axes: Axes, x: float, ends: Mapping[str, float], colours: Mapping[str, str], gap: float
) -> None:
    """Names to the right of the ends of curves, at least ``gap`` of the axes' height apart."""
    low, high = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name], reverse=True)
    places = _apart([ends[name] for name in names], gap * (high - low))
    for name, place in zip(names, places, strict=True):
        axes.annotate(
            name,
            (x, ends[name]),
            xytext=(1.03, place),
            textcoords=("axes fraction", "data"),
            color=colours.get(name, "#333333"),
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.6},
        )


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Falling places at least ``gap`` apart, near the falling ``values``."""
    groups: list[list[float]] = []  # each: sum of the best first places, size
    for value in values:
        groups.append([value, 1])
        while len(groups) > 1 and _first(groups[-2]) - groups[-2][1] * gap < _first(groups[-1]):
            total, size = groups.pop()
            groups[-1][0] += total + groups[-1][1] * size * gap
            groups[-1][1] += size
    return [_first(g) - k * gap for g in groups for k in range(int(g[1]))]


def _first(group: Sequence[float]) -> float:
    return group[0] / group[1]


def _parameters(results: Results) -> Figure:
    """NMSE against the number of learned numbers."""
    figure, axes = panels(1, (7.6, 4.8))
    rows = of_problem(results, "noiseless")
    columns: dict[float, dict[str, float]] = {}
    for name, row in rows.items():
        if "parameters" in row:
            count = row["parameters"]
            axes.plot(count, row["NMSE"], "o", color=_FAMILIES[name][0])
            columns.setdefault(round(np.log10(count) * 2), {})[name] = row["NMSE"]
    axes.set(xscale="log", xlabel="learned numbers", ylabel="NMSE (dB)", title="no noise")
    axes.margins(x=0.15, y=0.1)
    low, high = axes.get_ylim()
    gap = (high - low) / 28
    for key, column in columns.items():
        left = not columns.keys().isdisjoint((key + 1, key + 2))  # where there is more room
        names = sorted(column, key=lambda name: column[name], reverse=True)
        places = _apart([column[name] for name in names], gap)
        for name, place in zip(names, places, strict=True):
            count = rows[name]["parameters"]
            axes.annotate(
                title(name),
                (count, column[name]),
                xytext=(count / 1.35 if left else count * 1.35, place),
                ha="right" if left else "left",
                va="center",
                fontsize=8,
                color=_FAMILIES[name][0],
            )
    return figure


def _coupling(found: Mapping[str, Sequence[float]]) -> Figure:
    """Distance from coupled weights, and thresholds, of the trained LISTA."""
    figure, (left, right) = panels(2, (8.0, 3.4))
    layers = range(1, len(found["thresholds"]) + 1)
    left.plot(layers, found["spectral"], marker="o", color="#0072B2", label="spectral norm")
    left.plot(layers, found["relative"], marker="s", color="#D55E00", label="relative to W2")
    left.set(yscale="log", title="$W_2 - (I - W_1 A)$", xlabel="layer")
    left.legend(fontsize=9)
    right.plot(layers, found["thresholds"], marker="o", color="#0072B2")
    right.set(title="threshold", xlabel="layer")
    right.set_ylim(bottom=min(0.0, *found["thresholds"]))
    plain_ticks(left.yaxis)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def _coherence(found: Mapping[str, Sequence[float]]) -> Figure:
    """Generalised coherence of learned weights, layer by layer."""
    figure, axes = panels(1, (6.4, 3.8))
    n_layers = max(len(values) for values in found.values())
    layers = np.arange(1, n_layers + 1)
    for name, values in found.items():
        colour, line = _FAMILIES.get(name, ("#333333", "-" if name == "analytic" else ":"))
        curve = values if len(values) == n_layers else np.full(n_layers, values[0])
        axes.plot(layers, curve, color=colour, linestyle=line, label=title(name))
    axes.set(xlabel="layer", ylabel="generalised coherence")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right center", fontsize=9)
    return figure


def _mismatch(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    figure, row = panels(len(found), (3.2 * len(found), 3.6))
    for axes, (name, panel) in zip(row, found.items(), strict=True):
        _curves(axes, panel)
        axes.set_xlabel(_LABELS[name])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if name == "variance":
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
    row[0].set_ylabel("NMSE (dB)")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _robust(found: Mapping[str, Sequence[float]]) -> Figure:
    figure, axes = panels(1, (6.4, 4.4))
    _curves(axes, found)
    axes.set(xlabel=_LABELS["perturbation"], ylabel="NMSE (dB)")
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _curves(axes: Axes, found: Mapping[str, Any]) -> None:
    names = [name for name in found if name != "values"]
    for name, colour, marker in zip(names, _COLOURS, "os^D", strict=False):
        axes.plot(found["values"], found[name], color=colour, marker=marker, label=name)
