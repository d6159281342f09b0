"""Figures of the LPG-Net report: one function each, one style and one colour per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fastunroll.experiments.synthetic import FULL

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Okabe and Ito's palette, which people with colour-blindness can tell apart.
_COLOURS = {
    "LPG-Net": "#D55E00",
    "LPG-Net, plain PyTorch": "#E69F00",
    "ISTA": "#009E73",
    "ISTA, layers only": "#8FD3BF",
    "FISTA": "#56B4E9",
    "ADMM": "#0072B2",
    "coordinate descent (scikit-learn)": "#CC79A7",
    "split conformal": "#D55E00",
    "Gaussian residuals": "#0072B2",
}
_MARKERS = {
    "LPG-Net": "o",
    "ISTA": "s",
    "FISTA": "^",
    "ADMM": "D",
    "split conformal": "o",
    "Gaussian residuals": "s",
}
STYLE: dict[RcKeyType, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.fonttype": "path",
    "figure.facecolor": "white",
}
_WIDE, _NARROW = (8.0, 3.4), (5.6, 3.6)


def figures(
    parts: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, Any]
) -> dict[str, Figure]:
    """Draw every figure, by name, from the results of the parts."""
    draws: dict[str, Callable[[], Figure]] = {
        "objective": lambda: _objective(parts["objective"]),
        "sparsity": lambda: _sparsity(parts["sparsity"]),
        "snr": lambda: _snr(parts["snr"]),
        "latency": lambda: _latency(parts["latency"]["microseconds"]),
        "ablation": lambda: _ablation(parts["ablation"]),
        "calibration": lambda: _calibration(parts["calibration"]),
        "denoising": lambda: _denoising(parts["denoising"]["shown"], pictures),
    }
    with matplotlib.rc_context(STYLE):
        return {name: draw() for name, draw in draws.items()}


def panels(columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """Make a figure that needs no window system."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, columns)


def _lines(axes: Axes, x: Any, curves: Mapping[str, Any], *, markers: bool = True) -> None:
    """One line per method, LPG-Net on top; retuned methods are dashed."""
    for name, values in curves.items():
        method = name.removesuffix(", retuned")
        dashed = name != method
        axes.plot(
            x,
            values,
            color=_COLOURS[method],
            marker=_MARKERS.get(method) if markers and not dashed else None,
            linestyle=(0, (3, 2)) if dashed else "-",
            linewidth=1.2 if dashed else None,
            label=name,
            zorder=3 if method == "LPG-Net" else 2,
        )


def plain_ticks(axis: Axis) -> None:
    """Mark a logarithmic axis at 1, 2, 5, 10, ... (a long one at 1, 10, ...) in plain numbers."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _shared_legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _objective(part: Mapping[str, Any]) -> Figure:
    figure, (above, whole) = panels(2, _WIDE)
    layers = range(len(next(iter(part["F"].values()))))
    gaps = {name: np.subtract(curve, part["minimum"]) for name, curve in part["F"].items()}
    _lines(above, layers, gaps, markers=False)
    above.set(yscale="log", title="above the minimum", ylabel="mean F(x$_k$) - F*")
    _lines(whole, layers, part["F"], markers=False)
    whole.axhline(part["minimum"], color="#666666", linewidth=1, linestyle=":", label="minimum F*")
    whole.set(yscale="log", title="objective", ylabel="mean F(x$_k$)")
    for axes in (above, whole):
        axes.set_xlabel("layer or iteration k")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        plain_ticks(axes.yaxis)
    _shared_legend(figure, whole, 5)
    return figure


def _sparsity(part: Mapping[str, Any]) -> Figure:
    figure, both = panels(2, (8.0, 4.0))
    percent = 100 * np.array(part["values"])
    for axes, score, label in zip(
        both, ("MAE", "F1"), ("mean absolute error", "F1 of the support"), strict=True
    ):
        _lines(axes, percent, part[score])
        axes.set(xlabel="non-zeros of the true codes (%)", ylabel=label)
        axes.set_xticks(percent, [f"{p:g}" for p in percent])
    both[0].set_ylim(bottom=0)
    _shared_legend(figure, both[0], 4)
    return figure


def _snr(part: Mapping[str, Any]) -> Figure:
    figure, axes = panels(1, (5.6, 4.2))
    _lines(axes, part["values"], part["MAE"])
    axes.set(xlabel="signal-to-noise ratio (dB)", ylabel="mean absolute error", yscale="log")
    plain_ticks(axes.yaxis)
    _shared_legend(figure, axes, 3)
    return figure


def _latency(times: Mapping[str, Any]) -> Figure:
    figure, axes = panels(1, (7.0, 3.5))
    names = list(times)[::-1]
    boxes = axes.boxplot(
        [times[name] for name in names],
        orientation="horizontal",
        tick_labels=names,
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black", "linewidth": 1.4},
    )
    for box, name in zip(boxes["boxes"], names, strict=True):
        box.set(facecolor=_COLOURS[name], edgecolor="#333333")
    for row, name in enumerate(names, start=1):
        right = float(np.percentile(times[name], 95))
        axes.annotate(
            f"{np.median(times[name]):.0f} µs",
            (right, row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set(xscale="log", xlabel="time for one sample (µs), one thread")
    plain_ticks(axes.xaxis)
    axes.set_xlim(right=1.6 * max(float(np.percentile(t, 95)) for t in times.values()))
    axes.grid(axis="y", visible=False)
    return figure


def _ablation(rows: Mapping[str, Any]) -> Figure:
    figure, axes = panels(1, (6.4, 2.8))
    names = list(rows)[::-1]
    errors = [rows[name]["MAE"] for name in names]
    colours = [_COLOURS["LPG-Net"] if name == FULL else "#9A9A9A" for name in names]
    bars = axes.barh(names, errors, color=colours, height=0.62)
    reference = rows[FULL]["MAE"]
    labels = [
        f"{error:.4f}" + ("" if name == FULL else f"  ({100 * (error / reference - 1):+.1f} %)")
        for name, error in zip(names, errors, strict=True)
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.set(xlabel="mean absolute error on the test set", xlim=(0, 1.4 * max(errors)))
    axes.grid(axis="y", visible=False)
    return figure


def _calibration(part: Mapping[str, Any]) -> Figure:
    figure, (covered, widths) = panels(2, _WIDE)
    percent = 100 * np.array(part["levels"])
    span = [percent[0] - 2, 100]
    covered.plot(span, span, color="#666666", linewidth=1, linestyle=":", label="ideal")
    for axes, key, scale in ((covered, "coverage", 100), (widths, "half width", 1)):
        _lines(axes, percent, {k: scale * np.array(v) for k, v in part[key].items()})
        axes.set_xlabel("nominal coverage (%)")
    covered.set(ylabel="empirical coverage (%)", title="coverage")
    widths.set(ylabel="half width of the interval", title="width")
    widths.set_ylim(bottom=0)
    _shared_legend(figure, covered, 3)
    return figure


def _denoising(shown: Mapping[str, Any], pictures: Mapping[str, Any]) -> Figure:
    names = ("clean", "noisy", "ISTA", "LPG-Net")
    figure, row = panels(len(names), (10.0, 3.0))
    for axes, name in zip(row, names, strict=True):
        axes.imshow(pictures[name], cmap="gray", vmin=0, vmax=1)
        title = f"{name}\n"
        if name in shown:
            title += f"{shown[name]['PSNR dB']:.2f} dB, SSIM {shown[name]['SSIM']:.3f}"
        axes.set_title(title)
        axes.axis("off")
    return figure
