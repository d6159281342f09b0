"""Targets: least ratios between a rival and ours, kept in a TOML file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastunroll._optional import import_optional
from fastunroll._scalars import check_choice, check_number
from fastunroll.benchmarks.candidates import INFERENCE, OURS_2, TRAINING
from fastunroll.benchmarks.cases import Case, Outcome

QUANTITIES = ("time", "memory kept")


@dataclass(frozen=True)
class Target:
    """``candidate`` takes at most 1 / ``at_least`` of what the best of ``against`` takes."""

    name: str
    case: Case
    candidate: str
    against: tuple[str, ...]
    at_least: float
    quantity: str = "time"

    @property
    def candidates(self) -> tuple[str, ...]:
        """All that must be measured."""
        return (self.candidate, *self.against)


@dataclass(frozen=True)
class Reached:
    """A target and the ratio of one run."""

    target: Target
    ratio: float
    best: str
    """The best of ``against``."""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.ratio >= self.target.at_least

    @property
    def line(self) -> str:
        """What was wanted and what was reached."""
        t = self.target
        verdict = "reached" if self.met else "MISSED"
        wanted = f"{t.at_least:g}x {' and '.join(t.against)}"
        return f"{t.name:52} {wanted:30} {self.ratio:7.2f}x  {verdict}"


def load_targets(path: str | os.PathLike[str]) -> list[Target]:
    """Read targets.

    The file holds a list ``target`` of tables with ``name``, ``candidate``, ``against`` (a list),
    ``at_least``, optionally ``quantity``, and ``case``: the fields of a `Case` that differ from its
    defaults.

    Raises
    ------
    ValueError
        If a table is not as above; the message names it.
    """
    try:
        tables = parse_toml(Path(path).read_text())["target"]
        return [_target(table) for table in tables]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of targets: {error}") from error


def check_targets(targets: list[Target], outcomes: Mapping[Case, Outcome]) -> list[Reached]:
    """Ratios that a run reached; ``outcomes`` holds the case of every target."""
    results = []
    for target in targets:
        outcome = outcomes[target.case]
        if target.quantity == "time":
            sizes = {name: outcome.timings[name].median for name in target.candidates}
        else:
            sizes = {name: float(outcome.kept[name]) for name in target.candidates}
        best = min(target.against, key=sizes.__getitem__)
        results.append(Reached(target, sizes[best] / sizes[target.candidate], best))
    return results


def describe(result: Reached) -> dict[str, Any]:
    """A result for JSON."""
    return {**asdict(result), "met": result.met}


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text."""
    toml = import_optional("tomllib" if sys.version_info >= (3, 11) else "tomli", "bench")
    parsed: dict[str, Any] = toml.loads(text)
    return parsed


def _target(table: Mapping[str, Any]) -> Target:
    name = str(table["name"])
    fields = {**table, "case": Case(**table.get("case", {})), "against": tuple(table["against"])}
    target = Target(**fields)
    check_number(f"at_least of {name!r}", target.at_least, minimum=0.0, exclusive=True)
    check_choice(f"quantity of {name!r}", target.quantity, QUANTITIES)
    check_choice(f"job of {name!r}", target.case.job, ("inference", "training"))
    known = TRAINING if target.case.job == "training" else (*INFERENCE, OURS_2)
    for candidate in target.candidates:
        check_choice(f"candidate of {name!r}", candidate, known)
    return target
