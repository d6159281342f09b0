"""The run of all jobs for which there is time."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch

from fastunroll._build import build_info
from fastunroll.benchmarks.gpu.accuracy import Accuracy, measure_accuracy
from fastunroll.benchmarks.gpu.cases import ROUNDS, Outcome, candidates_of, measure
from fastunroll.benchmarks.gpu.roofline import Ceilings, Job, measure_ceilings
from fastunroll.benchmarks.gpu.timing import Clock


@dataclass
class Report:
    """All figures of a run."""

    machine: dict[str, Any]
    ceilings: Ceilings
    outcomes: list[Outcome]
    accuracy: list[Accuracy]
    left_out: list[str]
    """Jobs for which there was no time."""


def run(
    device: torch.device,
    jobs: Sequence[tuple[Job, str]],
    *,
    seconds: float = float("inf"),
    rounds: int = ROUNDS,
    product_size: int = 8192,
    without: Sequence[str] = (),
    progress: Callable[[str], None] = lambda line: None,
    after_job: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Measure everything for which there is time.

    Parameters
    ----------
    device
        A GPU; or the CPU, to see that everything runs.
    jobs : list of (Job, mode)
    seconds : float
        Time after which no other candidate is begun.
    rounds : int
        Turns of each candidate.
    product_size : int
        Side of the matrices that the ceilings are measured on.
    without : list of candidates
        Left out everywhere.
    progress : callable
        Is told every line of progress.
    after_job : callable
        Is given all figures so far, after each job.
    """
    deadline = time.monotonic() + seconds
    clock = Clock(device)
    report = Report(machine(device), measure_ceilings(clock, product_size), [], [], [])
    progress("accuracy")
    report.accuracy = measure_accuracy(clock)
    for job, precision in jobs:
        title = f"{job.title}, {precision}"
        if time.monotonic() > deadline:
            report.left_out.append(title)
            continue
        progress(title)
        names = [name for name in candidates_of(job, precision) if name not in without]
        report.outcomes.append(
            measure(
                *(job, precision, names, clock, report.ceilings), rounds=rounds, deadline=deadline
            )
        )
        if device.type == "cuda":
            torch.cuda.empty_cache()
        after_job(report)
    return report


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    facts = {
        **build_info(),
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": str(device),
    }
    if device.type != "cuda":
        return facts
    driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    properties = torch.cuda.get_device_properties(device)
    return {
        **facts,
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "driver": subprocess.run(driver, capture_output=True, text=True).stdout.split("\n")[0],
        "cuda runtime of torch": torch.version.cuda,
    }
