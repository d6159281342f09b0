"""Comparison of results with the targets in a file beside them, or in another folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastunroll._optional import import_optional

RESULTS, TARGETS = "results.json", "targets.toml"


@dataclass(frozen=True)
class Outcome:
    """A target and what the results have.

    Attributes
    ----------
    name : str
        What is meant.
    low, high : float
        Where the value is to lie.
    value : float, optional
        None where the results lack it.
    """

    name: str
    low: float
    high: float
    value: float | None

    @property
    def met(self) -> bool:
        """Whether the value is there and within its bounds."""
        return self.value is not None and self.low <= self.value <= self.high

    @property
    def line(self) -> str:
        """Wanted and reached, in one line."""
        if self.low == float("-inf"):
            wanted = f"<= {self.high:g}"
        elif self.high == float("inf"):
            wanted = f">= {self.low:g}"
        else:
            wanted = f"{self.low:g} to {self.high:g}"
        small = self.value is not None and 0 < abs(self.value) < 0.1
        reached = "missing" if self.value is None else f"{self.value:.{'1e' if small else '2f'}}"
        return f"{self.name:74} {wanted:>14} {reached:>9}  {'reached' if self.met else 'MISSED'}"


def check(folder: Path, fallback: Path) -> list[Outcome]:
    """Compare ``results.json`` in a folder with ``targets.toml`` there, or else in another folder.

    The file of targets holds a list ``target`` of tables with ``name``, ``path`` (a list of keys
    into the results) and ``at_most`` or ``at_least`` or both.

    Raises
    ------
    FileNotFoundError
        If there are no results, or targets in neither folder.
    ValueError
        If the file of targets is not as above.
    """
    path = next((p for p in (folder / TARGETS, fallback / TARGETS) if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"no {TARGETS} in {folder}, nor in {fallback}: put one beside the results, or run in "
            "the root of the repository"
        )
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    toml = import_optional("tomllib" if sys.version_info >= (3, 11) else "tomli")
    text = path.read_text(encoding="utf-8")
    try:
        return [_outcome(table, results) for table in toml.loads(text)["target"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of targets: {error!r}") from error


def _outcome(table: Mapping[str, Any], results: Mapping[str, Any]) -> Outcome:
    if not {"at_most", "at_least"} & table.keys():
        raise ValueError(f"{table['name']!r} has neither at_most nor at_least")
    value: Any = results
    for key in table["path"]:
        value = value.get(key) if isinstance(value, dict) else None
    return Outcome(
        table["name"],
        float(table.get("at_least", "-inf")),
        float(table.get("at_most", "inf")),
        None if value is None else float(value),
    )
