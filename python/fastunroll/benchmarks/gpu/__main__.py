"""Measure on the first GPU, print the tables and write every figure.

    python -m fastunroll.benchmarks.gpu --output FOLDER --targets benchmarks/gpu_targets.toml

Jobs run in the order of their importance until the time is up; what was left out is told.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from fastunroll.benchmarks.gpu import suite, tables
from fastunroll.benchmarks.gpu.candidates import AUTOTUNED, COMPILED
from fastunroll.benchmarks.gpu.cases import ROUNDS, SHRINK, SIZES, standard_jobs
from fastunroll.benchmarks.gpu.targets import check_targets, load_targets
from fastunroll.io import atomic_write


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m fastunroll.benchmarks.gpu")
    parser.add_argument("--output", type=Path, default=Path("fastunroll-gpu"))
    parser.add_argument("--targets", type=Path, help="TOML file of targets")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time to measure for")
    parser.add_argument("--quick", action="store_true", help="one size, 5 rounds, no compiling")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU: this benchmark needs one")
    targets = load_targets(options.targets) if options.targets else []
    jobs = standard_jobs()
    if options.quick:
        jobs = [(job, p) for job, p in jobs if job == SHRINK or (job.m, job.n) == SIZES[0]]

    def write(report: suite.Report) -> None:
        """Write what there is, so that a run that is stopped leaves it."""
        reached = check_targets(targets, report)
        figures = {**asdict(report), "targets": [asdict(result) for result in reached]}
        with atomic_write(options.output / "gpu.json") as temporary:
            temporary.write_text(json.dumps(figures, indent=1) + "\n")
        with atomic_write(options.output / "gpu.md") as temporary:
            temporary.write_text(tables.document(report, reached) + "\n")

    report = suite.run(
        torch.device("cuda", 0),
        jobs,
        seconds=options.seconds,
        rounds=5 if options.quick else ROUNDS,
        without=(COMPILED, AUTOTUNED) if options.quick else (),
        progress=lambda line: print(line, flush=True),
        after_job=write,
    )
    write(report)
    print(tables.document(report, check_targets(targets, report)))


if __name__ == "__main__":
    main()
