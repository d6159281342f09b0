"""The claims of the LPG-Net paper, each judged by our own data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastunroll.experiments.methods import SOLVERS
from fastunroll.experiments.synthetic import FULL

OURS = "LPG-Net"
_ABLATIONS_OF_THE_PAPER = ("no adaptive step", "no monotonicity penalty", "shared threshold")


@dataclass(frozen=True)
class Claim:
    """A claim, whether our data bear it out, and the numbers."""

    text: str
    holds: bool
    evidence: str


def judge(parts: dict[str, dict[str, Any]]) -> list[Claim]:
    """Judge every claim from the results of all parts."""
    return [
        _average(parts["comparison"]["scores"]),
        *(_scores(parts, retuned) for retuned in (False, True)),
        _objective(parts["objective"]),
        _latency(parts["latency"]["microseconds"], typical=True),
        _latency(parts["latency"]["microseconds"], typical=False),
        _ablation(parts["ablation"]),
        _calibration(parts["calibration"]),
        _denoising(parts["denoising"]["scores"]),
    ]


def _average(scores: dict[str, dict[str, float]]) -> Claim:
    found = {name: row["MAE"] for name, row in scores.items()}
    return Claim(
        "LPG-Net has the lowest MAE on the test set, which covers the whole range.",
        min(found, key=lambda name: found[name]) == OURS,
        "MAE: " + _listed(found, "{:.4f}"),
    )


def _scores(parts: dict[str, dict[str, Any]], retuned: bool) -> Claim:
    """Lowest MAE and highest F1 at every point of both sweeps."""
    suffix = ", retuned" if retuned else ""
    found = []
    holds = True
    for part, label in (("sparsity", "densities"), ("snr", "SNRs")):
        for score, sign in (("MAE", 1), ("F1", -1)):
            curves = parts[part][score]
            others = np.array([curves[name + suffix] for name in SOLVERS]) * sign
            wins = np.array(curves[OURS]) * sign < others.min(axis=0)
            holds &= bool(wins.all())
            found.append(f"best {score} at {wins.sum()} of {wins.size} {label}")
    how = "retuned at each" if retuned else "tuned once, as the network is trained once"
    return Claim(
        f"LPG-Net has the lowest MAE and the highest F1 at every point (the others {how}).",
        holds,
        "; ".join(found),
    )


def _objective(part: dict[str, Any]) -> Claim:
    last = {name: curve[-1] - part["minimum"] for name, curve in part["F"].items()}
    best = min(last, key=lambda name: last[name])
    return Claim(
        "LPG-Net lowers the LASSO objective further than the others in as many layers.",
        best == OURS,
        "F - F* after the last layer: " + _listed(last, "{:.2g}"),
    )


def _latency(times: dict[str, list[float]], *, typical: bool) -> Claim:
    if typical:
        found = {name: float(np.median(values)) for name, values in times.items()}
        text, what = "LPG-Net has the lowest latency.", "median in microseconds: "
    else:
        found = {
            name: float(np.subtract(*np.percentile(values, [75, 25])))
            for name, values in times.items()
        }
        text, what = "LPG-Net has the tightest latency.", "interquartile range in microseconds: "
    return Claim(text, min(found, key=lambda name: found[name]) == OURS, what + _listed(found))


def _ablation(rows: dict[str, dict[str, float]]) -> Claim:
    rises = {
        name: 100 * (rows[name]["MAE"] / rows[FULL]["MAE"] - 1) for name in _ABLATIONS_OF_THE_PAPER
    }
    costliest = max(rises, key=lambda name: rises[name])
    return Claim(
        "Removing the adaptive step costs most.",
        costliest == "no adaptive step" and rises[costliest] > 0,
        "change of the MAE: " + _listed(rises, "{:+.1f} %"),
    )


def _calibration(part: dict[str, Any]) -> Claim:
    gap = part["largest gap"]["split conformal"]
    return Claim(
        "The intervals are calibrated: empirical and nominal coverage agree within 2 %.",
        gap <= 0.02,
        "largest difference: "
        + _listed({k: 100 * v for k, v in part["largest gap"].items()}, "{:.1f} %"),
    )


def _denoising(rows: dict[str, dict[str, float]]) -> Claim:
    found = {name: row["patch PSNR dB"] for name, row in rows.items()}
    return Claim(
        "On real patches LPG-Net has the highest PSNR.",
        max(found, key=lambda name: found[name]) == OURS,
        "PSNR in dB: " + _listed(found, "{:.2f}"),
    )


def _listed(values: dict[str, float], form: str = "{:.0f}") -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
