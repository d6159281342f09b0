"""Targets on a GPU, kept in a TOML file, and what a run reached."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastunroll._scalars import check_choice, check_number
from fastunroll.benchmarks.gpu.candidates import CANDIDATES, OURS, PRECISIONS
from fastunroll.benchmarks.gpu.roofline import Job
from fastunroll.benchmarks.gpu.suite import Report
from fastunroll.benchmarks.targets import parse_toml

QUANTITIES = {
    "time": "x",  # of `against` over that of the candidate
    "memory": "x",  # likewise, peaks
    "rate": "calls/s",
    "bandwidth": "of a copy's",  # least bytes over time
    "accuracy": "dB",  # below 0, down to which the error is that of eager float32
}
"""What a target asks for, with its unit."""


@dataclass(frozen=True)
class Target:
    """A quantity is to be at least so large."""

    name: str
    at_least: float
    job: Job = field(default_factory=Job)
    candidate: str = OURS
    precision: str = "float32"
    quantity: str = "time"
    against: str = ""
    """A candidate in float32, for times and memory."""


@dataclass(frozen=True)
class Reached:
    """A target and what a run reached, None where that was not measured."""

    target: Target
    value: float | None

    @property
    def line(self) -> str:
        """What was wanted and what was reached."""
        t = self.target
        unit = QUANTITIES[t.quantity] + (f" {t.against}" if t.against else "")
        found, verdict = "-", "not measured"
        if self.value is not None:
            found = f"{self.value:.4g}"
            verdict = "reached" if self.value >= t.at_least else "MISSED"
        return f"{t.name:44} {f'{t.at_least:g} {unit}':28} {found:>8}  {verdict}"


def load_targets(path: str | os.PathLike[str]) -> list[Target]:
    """Read targets: a list ``target`` of tables with the fields of a `Target`.

    Raises
    ------
    ValueError
        If a table is not as above; the message names it.
    """
    try:
        return [_target(table) for table in parse_toml(Path(path).read_text())["target"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of targets: {error}") from error


def _target(table: Mapping[str, Any]) -> Target:
    target = Target(**{**table, "job": Job(**table.get("job", {}))})
    check_number(f"at_least of {target.name!r}", target.at_least, minimum=0.0, exclusive=True)
    check_choice(f"quantity of {target.name!r}", target.quantity, tuple(QUANTITIES))
    check_choice(f"precision of {target.name!r}", target.precision, PRECISIONS)
    check_choice(f"candidate of {target.name!r}", target.candidate, CANDIDATES)
    if target.quantity in ("time", "memory"):
        check_choice(f"against of {target.name!r}", target.against, CANDIDATES)
    return target


def check_targets(targets: list[Target], report: Report) -> list[Reached]:
    """What a run reached."""
    return [Reached(target, _value(target, report)) for target in targets]


def _value(target: Target, report: Report) -> float | None:
    if target.quantity == "accuracy":
        for a in report.accuracy:
            if (a.candidate, a.precision) == (target.candidate, target.precision):
                return -a.same_until
        return None
    found = {(o.job, o.precision): o for o in report.outcomes}
    ours, theirs = (found.get((target.job, p)) for p in (target.precision, "float32"))
    if ours is None or target.candidate not in ours.seconds:
        return None
    seconds = ours.seconds[target.candidate]
    if target.quantity == "rate":
        return 1 / seconds
    if target.quantity == "bandwidth":
        return target.job.least_bytes / seconds / report.ceilings.copy
    if theirs is None or target.against not in theirs.seconds:
        return None
    if target.quantity == "memory":
        return theirs.peak[target.against] / max(1, ours.peak[target.candidate])
    return theirs.seconds[target.against] / seconds
