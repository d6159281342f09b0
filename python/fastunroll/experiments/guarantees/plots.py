"""Figures of the experiments on optimisation guarantees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from fastunroll.experiments.guarantees.claims import Results, geometric_mean, hessian_fit
from fastunroll.experiments.guarantees.networks import ADMM, FEED_FORWARD, LISTA, NETWORKS
from fastunroll.experiments.guarantees.parts import EVERY
from fastunroll.experiments.plots import STYLE, panels, plain_ticks

_COLOURS = {LISTA: "#D55E00", ADMM: "#0072B2", FEED_FORWARD: "#7A7A7A"}
_MARKERS = {LISTA: "o", ADMM: "D", FEED_FORWARD: "s"}


def figures(results: Results, pictures: Mapping[str, NDArray[Any]]) -> dict[str, Figure]:
    """Draw every figure, by name."""
    draws: dict[str, Callable[[], Figure]] = {
        "samples": lambda: _samples(results),
        "kernel": lambda: _kernel(results["kernels"]),
        "hessian": lambda: _hessian(results),
        "descent": lambda: _descent(results["descents"]),
        "fourier": lambda: _fourier(results["fourier"]["PSNR dB"], pictures),
    }
    with matplotlib.rc_context(STYLE):
        return {name: draw() for name, draw in draws.items()}


def _samples(results: Results) -> Figure:
    """Training loss for every width, and test loss for the last."""
    fits, level = results["fits"], results["settings"]["near_zero"]
    *_, last = fits
    shown = [(width, "training") for width in fits] + [(last, "test")]
    figure, axes_of = panels(len(shown), (3.5 * len(shown), 3.7))
    for axes, (width, kind) in zip(axes_of, shown, strict=True):
        rows = {int(k): row for k, row in fits[width].items() if k != "learning rates"}
        for name in NETWORKS:
            losses = np.array([row[name][kind] for row in rows.values()])
            _band(axes, list(rows), losses, name)
        axes.set(xscale="log", yscale="log", xlabel="training samples T")
        axes.set_ylabel(f"{kind} loss relative to the estimate 0")
        axes.set_title(f"{kind} loss, width {width}")
        plain_ticks(axes.xaxis)
        if kind == "test":
            plain_ticks(axes.yaxis)
        else:
            axes.axhline(level, color="#333333", linewidth=1, linestyle=":", label="near zero")
    _legend(figure, axes_of[0], 4)
    return figure


def _kernel(kernels: Mapping[str, Any]) -> Figure:
    """Smallest eigenvalue of every seed, and its upper bounds."""
    figure, (left, right) = panels(2, (8.4, 3.9))
    counts = list(kernels)
    for offset, name in zip((-0.22, 0, 0.22), NETWORKS, strict=True):
        for place, count in enumerate(counts):
            values = kernels[count][name]["smallest"]
            jitter = np.linspace(-0.07, 0.07, len(values))
            left.plot(
                *(place + offset + jitter, values),
                color=_COLOURS[name],
                marker=_MARKERS[name],
                markersize=3.5,
                linestyle="none",
                alpha=0.55,
                label=name if place == 0 else None,
            )
            mean = geometric_mean(values)
            left.hlines(
                mean, place + offset - 0.1, place + offset + 0.1, color="black", linewidth=1.4
            )
    left.set_xticks(range(len(counts)), counts)
    left.set(yscale="log", xlabel="samples T", ylabel="$\\lambda_{min}$(K(w$_0$))")
    left.set_title("smallest eigenvalue (bars: geometric mean)")
    keys = ("smallest", "least diagonal", "norm bound")
    first = counts[0]
    for name in NETWORKS:
        means = [geometric_mean(kernels[first][name][key]) for key in keys]
        right.plot(range(3), means, color=_COLOURS[name], marker=_MARKERS[name], label=name)
    right.set_xticks(range(3), ("$\\lambda_{min}$", "least\ndiagonal entry", "norm\nbound"))
    right.set(yscale="log", ylabel="geometric mean over the seeds")
    right.set_title(f"and its upper bounds, T = {first}")
    _legend(figure, right, 3)
    return figure


def _hessian(results: Results) -> Figure:
    """Hessian norm against the width with the fitted power laws."""
    figure, axes = panels(1, (5.8, 4.2))
    widths = np.array([int(width) for width in results["hessians"]])
    for name in NETWORKS:
        norms = np.array([results["hessians"][str(width)][name] for width in widths])
        logs = np.log(norms)
        means = np.exp(logs.mean(axis=1))
        spread = np.exp(logs.std(axis=1, ddof=1) / np.sqrt(norms.shape[1]))
        fit = hessian_fit(results, name)
        axes.errorbar(
            widths,
            means,
            yerr=(means - means / spread, means * spread - means),
            color=_COLOURS[name],
            marker=_MARKERS[name],
            linestyle="none",
            capsize=3,
            label=f"{name}: exponent {fit.exponent:.2f} $\\pm$ {fit.error:.2f}",
        )
        axes.plot(widths, fit.factor * widths**fit.exponent, color=_COLOURS[name], linewidth=1.2)
    start = 1.25 * max(results["hessians"][str(widths[0])][LISTA])
    theory = start * (widths / widths[0]) ** -0.5
    axes.plot(widths, theory, color="black", linewidth=1, linestyle=":", label="slope -1/2")
    axes.set(xscale="log", yscale="log", xlabel="width n", ylabel="spectral norm of the Hessian")
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title("Hessian of an output at the start")
    low, high = axes.get_ylim()
    axes.set_ylim(low / 4, high)
    axes.legend(fontsize=9, loc="lower left")
    return figure


def _descent(descents: Mapping[str, Any]) -> Figure:
    """Loss, PL ratio and Lipschitz ratio of every seed."""
    figure, axes_of = panels(3, (10.5, 3.7))
    keys = ("loss", "PL ratio", "Lipschitz ratio")
    labels = (
        "L(w$_k$) / L(w$_0$)",
        "$||\\nabla$L$||^2$ / 2L",
        "$||\\Delta\\nabla$L$||$ / $||\\Delta$w$||$",
    )
    for axes, key, label in zip(axes_of, keys, labels, strict=True):
        for name in NETWORKS:
            for seed, curve in enumerate(descents[name][key]):
                values = np.array(curve) / (curve[0] if key == "loss" else 1)
                axes.plot(
                    EVERY * np.arange(len(values)),
                    values,
                    color=_COLOURS[name],
                    linewidth=1.2,
                    alpha=0.85,
                    label=name if seed == 0 else None,
                )
                if key == "PL ratio":
                    axes.plot(
                        0,
                        descents[name]["smallest eigenvalue"][seed],
                        color=_COLOURS[name],
                        marker=">",
                        clip_on=False,
                        linestyle="none",
                    )
        axes.set(yscale="log", xlabel="step k of gradient descent", ylabel=label)
    axes_of[0].set_title("loss")
    axes_of[1].set_title("PL ratio ($\\blacktriangleright$: $\\lambda_{min}$(K(w$_0$)))")
    axes_of[2].set_title("Lipschitz ratio of the gradient")
    _legend(figure, axes_of[0], 3)
    return figure


def _fourier(scores: Mapping[str, float], pictures: Mapping[str, NDArray[Any]]) -> Figure:
    figure, axes_of = panels(len(pictures), (2.6 * len(pictures), 3.1))
    for axes, (name, picture) in zip(axes_of, pictures.items(), strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}\n" + (f"{scores[name]:.2f} dB" if name in scores else ""))
        axes.axis("off")
    return figure


def _band(axes: Axes, x: list[int], values: NDArray[np.float64], name: str) -> None:
    """Geometric mean over the seeds, and their range."""
    means = np.exp(np.log(values).mean(axis=1))
    axes.plot(x, means, color=_COLOURS[name], marker=_MARKERS[name], label=name)
    axes.fill_between(
        x, values.min(axis=1), values.max(axis=1), color=_COLOURS[name], alpha=0.18, linewidth=0
    )


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
