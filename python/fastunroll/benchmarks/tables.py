"""Tables of a report in Markdown, and documents that show them between markers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastunroll.benchmarks.candidates import (
    COMPILED,
    EAGER,
    EAGER_GRAM,
    ENGINE,
    NUMPY,
    ONNX,
    OURS,
)
from fastunroll.benchmarks.cases import Outcome
from fastunroll.benchmarks.suite import TYPICAL, Report
from fastunroll.benchmarks.timing import ratio
from fastunroll.io import atomic_write

RIVALS = (EAGER, EAGER_GRAM, COMPILED, ONNX, NUMPY)
LEAST_AGAINST_EAGER = 0.9
"""The planner may nowhere be slower than this share of eager PyTorch's speed."""


def sections(report: Report) -> dict[str, str]:
    """All parts of a report as Markdown, by name."""
    chosen = [outcome for outcome in report.outcomes if _is_central(outcome)]
    return {
        "setting": _setting(report),
        "summary": _outcomes(chosen),
        "inference": _outcomes(o for o in report.outcomes if o.case.job == "inference"),
        "training": _outcomes(o for o in report.outcomes if o.case.job == "training"),
        "latency": _latency(report.outcomes),
        "losses": _losses(report.outcomes),
        "targets": _targets(report),
        "recovery": _recovery(report),
    }


def refresh(path: str | os.PathLike[str], parts: dict[str, str]) -> None:
    """Put the parts that a document asks for between its markers.

    A marker is a line ``<!-- bench:NAME -->``; the part ends at ``<!-- /bench:NAME -->``. Parts
    that are empty leave what is there.

    Raises
    ------
    ValueError
        If the document has no markers, or asks for a part that there is not.
    """
    text = Path(path).read_text()
    names = re.findall(r"<!-- bench:(\w+) -->", text)
    if not names:
        raise ValueError(f"{path} has no marker <!-- bench:NAME -->")
    for name in names:
        if name not in parts:
            raise ValueError(f"{path} asks for {name!r}; known: {', '.join(parts)}")
        begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        head, _, rest = text.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise ValueError(f"{path} lacks {end}")
        if parts[name]:
            text = f"{head}{begin}\n{parts[name]}\n{end}{tail}"
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def duration(seconds: float) -> str:
    """A time with a unit, three digits."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e6:.3g} us"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""


def _is_central(outcome: Outcome) -> bool:
    """Whether a case belongs into the short table."""
    case = outcome.case
    middle = (case.m, case.n) == (250, 500) and case.tied and not case.isa
    return middle and case.density in (TYPICAL, 0.6) and case.learned == "all"


def _setting(report: Report) -> str:
    facts = report.machine
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items() if v is not None)
    quick = " These are figures of a quick run: they mean nothing." if report.quick else ""
    return (
        f"{facts['cpu']}, {facts['isa']}, one thread, float32, medians of {report.rounds} "
        f"interleaved rounds; {versions}.{quick}"
    )


def _outcomes(outcomes: Iterable[Outcome]) -> str:
    """One row a case: our times, and how many times as long the others take."""
    rows = []
    for o in outcomes:
        if OURS not in o.timings:
            continue
        ours = o.timings[OURS]
        engine = o.timings.get(ENGINE)
        cells = [o.case.title, f"{o.density:.2f}", duration(ours.median)]
        cells.append(duration(engine.median) if engine else "")
        cells += [
            f"{ratio(o.timings[name], ours).median:.2f}x" if name in o.timings else ""
            for name in RIVALS
        ]
        cells.append(f"{o.kept[EAGER] / o.kept[OURS]:.1f}x" if EAGER in o.kept else "")
        peaks = [f"{o.peak[name] / 1e6:.1f}" for name in (OURS, EAGER) if name in o.peak]
        cells.append(" / ".join(peaks))
        rows.append(cells)
    heads = ["job", "density seen", OURS, "runtime", *RIVALS]
    heads += ["kept by eager", "peak MB, ours / eager"]
    return _table(heads, rows)


def _latency(outcomes: Iterable[Outcome]) -> str:
    rows = [
        [o.case.title, name, *(duration(t.percentiles[p]) for p in ("50", "90", "99"))]
        for o in outcomes
        if o.case.batch == 1 and o.case.job == "inference" and o.case.density == TYPICAL
        for name, t in o.timings.items()
    ]
    return _table(["job", "candidate", "median", "90 %", "99 %"], rows)


def _losses(outcomes: Iterable[Outcome]) -> str:
    """Where a rival is faster than we are, and whether eager PyTorch is by more than it may."""
    lines = []
    slow = []
    for o in outcomes:
        for name in RIVALS:
            if OURS in o.timings and name in o.timings:
                found = ratio(o.timings[name], o.timings[OURS]).median
                if found < 1:
                    lines.append(f"* {o.case.title}: {name} takes {found:.2f} of our time.")
                if name == EAGER and found < LEAST_AGAINST_EAGER:
                    slow.append(o.case.title)
    lines = lines or ["* Nowhere in this run."]
    verdict = f"Slower than {LEAST_AGAINST_EAGER} of eager PyTorch's speed: "
    return "\n".join([*lines, "", f"{verdict}{'; '.join(slow) or 'nowhere'}."])


def _targets(report: Report) -> str:
    rows = [
        [
            r.target.name,
            f"{r.target.at_least:g}x {' and '.join(r.target.against)}",
            f"{r.ratio:.2f}x",
            "reached" if r.met else "**missed**",
        ]
        for r in report.targets
    ]
    return _table(["job", "at least", "reached", ""], rows)


def _recovery(report: Report) -> str:
    rows = [
        [
            row.method,
            f"{row.microseconds:.0f} us",
            f"{row.nmse_db:.1f} dB",
            row.setting + ("" if row.as_good else " (its most accurate)"),
        ]
        for row in report.recovery
    ]
    table = _table(["method", "time of a sample", "NMSE", "setting"], rows)
    notes = "".join(f"\n\nLeft out: {reason}" for reason in report.skipped)
    return table + notes if table else ""
