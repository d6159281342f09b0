"""Figures of a report: speed-up against density, size and batch; latency of single samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from fastunroll.benchmarks.candidates import (
    COMPILED,
    EAGER,
    EAGER_GRAM,
    ENGINE,
    NUMPY,
    ONNX,
    OURS,
)
from fastunroll.benchmarks.cases import Case, Outcome
from fastunroll.benchmarks.suite import TYPICAL, Report

# Okabe and Ito's palette, which people with colour-blindness can tell apart.
_STYLES = {
    OURS: ("#D55E00", "o"),
    ENGINE: ("#E69F00", "P"),
    EAGER: ("#0072B2", "s"),
    EAGER_GRAM: ("#56B4E9", "^"),
    COMPILED: ("#009E73", "D"),
    ONNX: ("#CC79A7", "v"),
    NUMPY: ("#999999", "X"),
}

Panel = tuple[str, Callable[[Case], bool]]


def draw(report: Report, directory: Path) -> list[Path]:
    """Write all figures for which there are cases, as PNG."""
    outcomes = [o for o in report.outcomes if OURS in o.timings and not o.case.isa]

    def like(
        job: str, batch: int | None = None, density: float | None = None
    ) -> Callable[..., bool]:
        return lambda case: (
            case.job == job
            and case.tied
            and case.learned == "all"
            and batch in (None, case.batch)
            and density in (None, case.density)
        )

    def middle(case: Case) -> bool:
        return (case.m, case.n) == (250, 500)

    figures = {
        "density": (
            "density of the codes",
            lambda case: case.density,
            [
                ("inference, B=1", lambda c: middle(c) and like("inference", 1)(c)),
                ("inference, B=1024", lambda c: middle(c) and like("inference", 1024)(c)),
                ("training, B=1024", lambda c: middle(c) and like("training", 1024)(c)),
            ],
        ),
        "size": (
            "atoms n",
            lambda case: case.n,
            [
                ("inference, B=1", like("inference", 1, TYPICAL)),
                ("inference, B=64", like("inference", 64, TYPICAL)),
                ("training, B=64", like("training", 64, TYPICAL)),
            ],
        ),
        "batch": (
            "batch B",
            lambda case: case.batch,
            [
                ("inference", lambda c: middle(c) and like("inference", None, TYPICAL)(c)),
                ("training", lambda c: middle(c) and like("training", None, TYPICAL)(c)),
            ],
        ),
    }
    drawn = {
        name: _speed_up(outcomes, label, key, panels)
        for name, (label, key, panels) in figures.items()
    }
    drawn["latency"] = _latency([o for o in outcomes if like("inference", 1, TYPICAL)(o.case)])
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(directory / f"{name}.png")
            figure.savefig(paths[-1], dpi=150)
    return paths


def _speed_up(
    outcomes: Iterable[Outcome],
    label: str,
    key: Callable[[Case], float],
    panels: Sequence[Panel],
) -> Figure | None:
    """How many times as long the others take, one panel for each kind of job."""
    found = list(outcomes)
    chosen = [(title, [o for o in found if keep(o.case)]) for title, keep in panels]
    chosen = [(title, sorted(some, key=lambda o: key(o.case))) for title, some in chosen if some]
    if not chosen:
        return None
    figure = Figure(figsize=(4 * len(chosen), 3.8), layout="constrained")
    all_axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    handles = {}
    for axes, (title, some) in zip(all_axes, chosen, strict=True):
        for name, (colour, marker) in _STYLES.items():
            points = [
                (key(o.case), o.timings[name].median / o.timings[OURS].median)
                for o in some
                if name in o.timings and name != OURS
            ]
            if points:
                (line,) = axes.plot(*zip(*points, strict=True), color=colour, marker=marker)
                handles[name] = line
        axes.axhline(1, color=_STYLES[OURS][0], linewidth=1.5)
        values = sorted({key(o.case) for o in some})
        axes.set(title=title, xlabel=label, xscale="log", yscale="log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        _log_ticks(axes.yaxis)
        _finish(axes)
    all_axes[0].set_ylabel("time, as a multiple of fastunroll's")
    columns = 2 * len(chosen)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)
    return figure


def _latency(outcomes: Sequence[Outcome]) -> Figure | None:
    """Median (mark) and 99 % of the calls (end of the bar), for single samples."""
    if not outcomes:
        return None
    figure = Figure(figsize=(4 * len(outcomes), 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(outcomes), squeeze=False)[0]
    for axes, outcome in zip(all_axes, sorted(outcomes, key=lambda o: o.case.n), strict=True):
        names = [name for name in _STYLES if name in outcome.timings]
        for row, name in enumerate(reversed(names)):
            p = outcome.timings[name].percentiles
            colour, marker = _STYLES[name]
            axes.hlines(row, 1e6 * p["10"], 1e6 * p["99"], color=colour, linewidth=2)
            axes.plot(1e6 * p["50"], row, color=colour, marker=marker)
        axes.set_yticks(range(len(names)), reversed(names))
        axes.set(
            title=f"B=1, m={outcome.case.m} n={outcome.case.n}",
            xlabel="microseconds (10 %, median, 99 %)",
            xscale="log",
        )
        _log_ticks(axes.xaxis)
        _finish(axes)
    for axes in all_axes[1:]:
        axes.tick_params(labelleft=False)
    return figure


def _log_ticks(axis: Axis) -> None:
    """Label 1, 2, 5, 10, ..."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _finish(axes: Axes) -> None:
    axes.grid(True, color="#E3E3E3", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
