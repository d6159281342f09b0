"""The suite: which cases are measured with which candidates, and the run of all of them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any

import fastunroll
from fastunroll._build import build_info
from fastunroll._optional import import_optional
from fastunroll.benchmarks import recovery
from fastunroll.benchmarks.candidates import INFERENCE, TRAINING
from fastunroll.benchmarks.cases import Case, Outcome, measure
from fastunroll.benchmarks.targets import Reached, Target, check_targets, describe

SIZES = ((64, 128), (250, 500), (768, 3072), (1000, 1500))
DENSITIES = (0.05, 0.1, 0.2, 0.6)
BATCHES = (1, 64, 1024)
TYPICAL = 0.1
ROUNDS, QUICK_ROUNDS = 20, 2

Jobs = dict[Case, tuple[str, ...]]
"""Candidates by case."""

RIVALS = ("numpy", "onnxruntime", "scikit-learn", "spams-bin", "torch")


@dataclass(frozen=True)
class Report:
    """All figures of a run."""

    machine: dict[str, Any]
    rounds: int
    quick: bool
    outcomes: list[Outcome]
    targets: list[Reached]
    recovery: list[recovery.Row]
    skipped: list[str]
    """What could not be measured, and why."""

    def as_json(self) -> dict[str, Any]:
        """The report in plain types."""
        return {**asdict(self), "targets": [describe(result) for result in self.targets]}


def standard_jobs() -> Jobs:
    """Lines through the middle (m=250 n=500, density 0.1): density, size, batch; and untied W.

    Large sizes run with batches up to 64: more would take an hour.
    """
    inference = [
        *(Case(batch=b, density=d) for b, d in product((1, 1024), DENSITIES)),
        Case(batch=64, density=TYPICAL),
        *(Case(batch=b, m=m, n=n, density=TYPICAL) for b, (m, n) in product((1, 64), SIZES)),
        *(Case(batch=b, density=TYPICAL, tied=False) for b in BATCHES),
    ]
    training = [
        *(Case("training", 1024, density=d) for d in DENSITIES),
        Case("training", 64, density=TYPICAL),
        *(Case("training", 64, m, n, TYPICAL) for m, n in ((64, 128), (1000, 1500))),
        Case("training", 64, density=TYPICAL, tied=False),
    ]
    return {**dict.fromkeys(inference, INFERENCE), **dict.fromkeys(training, TRAINING)}


def with_targets(jobs: Jobs, targets: list[Target]) -> Jobs:
    """The jobs and those that targets need besides."""
    merged = dict(jobs)
    for target in targets:
        merged[target.case] = tuple(
            dict.fromkeys((*merged.get(target.case, ()), *target.candidates))
        )
    return merged


def run(
    jobs: Jobs,
    targets: list[Target],
    *,
    rounds: int = ROUNDS,
    quick: bool = False,
    compare_recovery: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure everything.

    Parameters
    ----------
    jobs : dict
        Candidates by case.
    targets : list of Target
        Their cases are measured as well.
    rounds : int
        Rounds in which the candidates of a case take turns.
    quick : bool
        Two rounds of tiny problems, to see that everything runs; the figures mean nothing.
    compare_recovery : bool
        Whether to compare with lasso and OMP at equal quality, too.
    progress : callable
        Is told every line of progress.
    """
    shrunk = _tiny if quick else _same
    targets = [replace(target, case=shrunk(target.case)) for target in targets]
    jobs = with_targets({shrunk(case): names for case, names in jobs.items()}, targets)
    rounds = QUICK_ROUNDS if quick else rounds
    outcomes: dict[Case, Outcome] = {}
    for number, (case, names) in enumerate(jobs.items(), 1):
        progress(f"[{number}/{len(jobs)}] {case.title}")
        outcomes[case] = measure(case, names, rounds)
    rows: list[recovery.Row] = []
    skipped: list[str] = []
    if compare_recovery:
        progress("recovery at equal quality")
        rows, skipped = recovery.compare(rounds, quick=quick)
    results = check_targets(targets, outcomes)
    return Report(machine(), rounds, quick, list(outcomes.values()), results, rows, skipped)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": import_optional("cpuinfo", "bench").get_cpu_info().get("brand_raw", "unknown"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "fastunroll": fastunroll.__version__,
        **build_info(),
        "threads": 1,
        "versions": {name: _version(name) for name in RIVALS},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _same(case: Case) -> Case:
    return case


def _tiny(case: Case) -> Case:
    small = {"batch": min(case.batch, 8), "m": case.m // 10, "n": case.n // 10, "n_layers": 2}
    fields: Mapping[str, Any] = small
    return replace(case, **fields)
