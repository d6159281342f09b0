"""Speed and memory against PyTorch, in one run on one thread: ``python ratios.py --help``."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cpuinfo
import numpy as np
import torch
from cases import Case, Outcome, measure
from timing import Ratio, ratio

import fastunroll
from fastunroll.io import atomic_write

SINGLE = Case("inference", 1)
BATCH = Case("inference", 1024)
TRAINING = Case("training", 1024)
CASES = (
    SINGLE,
    BATCH,
    TRAINING,
    Case("inference", 64),
    Case("training", 64),
    Case("inference", 1, 64, 128),
    Case("training", 64, 64, 128),
    Case("inference", 1024, density=0.6),
    Case("training", 1024, density=0.6),
)


@dataclass(frozen=True)
class Requirement:
    """A least ratio between a baseline and a candidate, in time or in memory."""

    case: Case
    quantity: str
    candidate: str
    baseline: str
    at_least: float


REQUIREMENTS = (
    Requirement(SINGLE, "time", "fused", "eager", 8),
    Requirement(SINGLE, "time", "fused, nn.Module", "eager", 8),
    Requirement(BATCH, "time", "fused", "torch.compile", 3),
    Requirement(TRAINING, "time", "fused", "eager", 3),
    Requirement(TRAINING, "memory", "fused", "eager", 10),
)


def reached(requirement: Requirement, outcome: Outcome) -> Ratio:
    """The ratio that a requirement speaks of."""
    if requirement.quantity == "time":
        seconds = outcome.seconds
        return ratio(seconds[requirement.baseline], seconds[requirement.candidate])
    exact = outcome.kept[requirement.baseline] / outcome.kept[requirement.candidate]
    return Ratio(exact, exact, exact)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": cpuinfo.get_cpu_info().get("brand_raw", platform.processor()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "fastunroll": fastunroll.__version__,
        **fastunroll.build_info(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def duration(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"


def print_outcome(outcome: Outcome) -> None:
    """One block of the table: a case and its candidates."""
    print(f"\n{outcome.case.title(outcome.n_layers)} (measured {outcome.density:.3f})")
    for name, seconds in outcome.seconds.items():
        times = ratio(seconds, outcome.seconds["fused"])
        kept = f"{outcome.kept[name] / 1e6:10.2f} MB kept" if name in outcome.kept else ""
        print(
            f"  {name:26}{duration(float(np.median(seconds))):>12}"
            f"{times.median:9.2f}x ({times.low:.2f} .. {times.high:.2f}){kept}".rstrip()
        )


def print_requirements(results: list[dict[str, Any]]) -> None:
    print(f"\n{'required':62}{'at least':>9}{'reached':>9}")
    for result in results:
        name = (
            f"{result['job']} B={result['batch']}, {result['quantity']}: "
            f"{result['candidate']} against {result['baseline']}"
        )
        print(
            f"{name:62}{result['at_least']:8g}x{result['ratio']['median']:8.2f}x  "
            f"{'reached' if result['met'] else 'MISSED'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="2 layers and 3 rounds: shows that everything runs; the figures mean nothing",
    )
    arguments = parser.parse_args()
    n_layers, rounds = (2, 3) if arguments.quick else (16, 30)
    torch.set_num_threads(1)

    facts = machine()
    outcomes = {}
    for number, case in enumerate(CASES, 1):
        print(f"[{number}/{len(CASES)}] {case.title(n_layers)} ...", flush=True)
        outcomes[case] = measure(case, n_layers, rounds)

    results = []
    for requirement in REQUIREMENTS:
        found = reached(requirement, outcomes[requirement.case])
        results.append(
            {
                **asdict(requirement.case),
                "quantity": requirement.quantity,
                "candidate": requirement.candidate,
                "baseline": requirement.baseline,
                "at_least": requirement.at_least,
                "ratio": found._asdict(),
                "met": found.median >= requirement.at_least,
            }
        )

    print(
        f"\n{facts['cpu']}, {facts['isa']}, torch {facts['torch']}, {facts['threads']} thread, "
        f"float32, {rounds} rounds\n"
        "median time of a call; how many times as long as fused it takes "
        "(10 % .. 90 % of the rounds)"
    )
    for outcome in outcomes.values():
        print_outcome(outcome)
    print_requirements(results)
    if arguments.quick:
        print("\n--quick: these figures mean nothing.")
    if arguments.json:
        report = {
            "machine": facts,
            "quick": arguments.quick,
            "rounds": rounds,
            "cases": [asdict(outcome) for outcome in outcomes.values()],
            "requirements": results,
        }
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nAll figures: {arguments.json}")


if __name__ == "__main__":
    main()
