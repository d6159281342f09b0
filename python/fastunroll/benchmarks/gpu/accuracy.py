"""How exactly each mode recovers codes, at full depth: its error on the device itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastunroll.benchmarks.gpu.candidates import EAGER, OURS, PRECISIONS, precision_of
from fastunroll.benchmarks.gpu.timing import Clock
from fastunroll.benchmarks.precision import SAME_DB, STEP, Recovery, make_recovery, same_until
from fastunroll.functional import unrolled_prox_gradient
from fastunroll.metrics import nmse_db
from fastunroll.ops.reference import soft_threshold


@dataclass(frozen=True)
class Accuracy:
    """Recovery without noise by one candidate in one mode."""

    candidate: str
    precision: str
    least: float
    """Smallest NMSE over the layers, in dB."""
    same_until: float
    """NMSE in dB down to which it is that of eager PyTorch in float32, up to `SAME_DB`."""


def measure_accuracy(clock: Clock, problem: Recovery | None = None) -> list[Accuracy]:
    """Errors of ours and of eager PyTorch in every mode, by the layer."""
    single = (problem or make_recovery()).to(torch.float32).to(clock.device)
    curves = {}
    with torch.inference_mode():
        for precision in PRECISIONS:
            with precision_of(clock, precision):
                curves[OURS, precision] = _curve(single, _ours(single, precision))
                if precision != "mixed":
                    curves[EAGER, precision] = _curve(single, _eager(single))
    exact = curves[EAGER, "float32"]
    return [Accuracy(*key, min(found), same_until(found, exact)) for key, found in curves.items()]


def describe(accuracy: Accuracy) -> str:
    """One line."""
    a = accuracy
    return (
        f"{a.candidate}, {a.precision}: least NMSE {a.least:.1f} dB, within {SAME_DB:g} dB of "
        f"eager float32 down to {a.same_until:.1f} dB"
    )


def _ours(p: Recovery, precision: str) -> Tensor:
    found = unrolled_prox_gradient(
        p.measurements,
        p.dictionary,
        p.weight,
        step=STEP,
        threshold=p.thresholds,
        iterates=True,
        form="factored" if precision == "mixed" else "auto",
    ).iterates
    assert found is not None
    return found[1:]


def _eager(p: Recovery) -> Tensor:
    x = torch.zeros_like(p.codes)
    found = []
    for threshold in p.thresholds:
        residual = x @ p.dictionary.mT - p.measurements
        x = soft_threshold(x - STEP * (residual @ p.weight), threshold)
        found.append(x)
    return torch.stack(found)


def _curve(p: Recovery, iterates: Tensor) -> list[float]:
    return [float(nmse_db(x.double(), p.codes.double())) for x in iterates]
