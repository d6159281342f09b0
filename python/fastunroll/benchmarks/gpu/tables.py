"""Tables of a run in Markdown; the targets come last, where a terminal shows them."""

from __future__ import annotations

from fastunroll.benchmarks.gpu.accuracy import describe
from fastunroll.benchmarks.gpu.candidates import CANDIDATES, OURS
from fastunroll.benchmarks.gpu.cases import Outcome
from fastunroll.benchmarks.gpu.suite import Report
from fastunroll.benchmarks.gpu.targets import Reached
from fastunroll.benchmarks.tables import duration


def document(report: Report, reached: list[Reached]) -> str:
    """All tables."""
    parts = [
        _machine(report),
        _times(report.outcomes),
        _details(report.outcomes),
        "\n".join(f"* {describe(a)}" for a in report.accuracy),
        _left_out(report),
        "\n".join(["```", *(result.line for result in reached), "```"]) if reached else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(report: Report) -> str:
    c = report.ceilings
    rates = [f"{rate / 1e12:.3g} TFLOP/s {name}" for name, rate in _rates(report)]
    facts = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    return f"{facts}.\n\nMeasured ceilings: copy {c.copy / 1e12:.3g} TB/s, {', '.join(rates)}."


def _rates(report: Report) -> list[tuple[str, float]]:
    c = report.ceilings
    return [("float32", c.float32), ("TF32", c.tf32), ("BF16", c.bf16)]


def _times(outcomes: list[Outcome]) -> str:
    """Our time, and how many times as long the others take."""
    others = [name for name in CANDIDATES if name != OURS]
    rows = []
    for o in outcomes:
        ours = o.seconds.get(OURS)
        cells = [o.job.title, o.precision, duration(ours) if ours else "-"]
        cells.append(f"{o.floor / ours:.0%}" if ours else "-")
        cells += [
            f"{o.seconds[name] / ours:.2f}x" if ours and name in o.seconds else ""
            for name in others
        ]
        rows.append(cells)
    return _table(["job", "mode", OURS, "of the roofline", *others], rows)


def _details(outcomes: list[Outcome]) -> str:
    """Time, memory and error of every candidate."""
    rows = [
        [
            o.job.title,
            o.precision,
            name,
            duration(seconds),
            f"{o.peak[name] / 2**20:.1f}",
            f"{o.errors[name]:.1e}",
        ]
        for o in outcomes
        for name, seconds in o.seconds.items()
    ]
    return _table(["job", "mode", "candidate", "median", "peak MiB", "error"], rows)


def _left_out(report: Report) -> str:
    lines = [f"* {title}: no time" for title in report.left_out]
    for o in report.outcomes:
        lines += [
            f"* {o.job.title}, {o.precision}, {name}: {reason}"
            for name, reason in o.left_out.items()
        ]
    return "\n".join(["Left out:", "", *lines]) if lines else ""
