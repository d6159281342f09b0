"""The paper's claims, each judged by our own data, and the numbers that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastunroll.experiments.claims import Claim
from fastunroll.experiments.guarantees.networks import ADMM, FEED_FORWARD, LISTA, NETWORKS, UNROLLED
from fastunroll.experiments.guarantees.parts import EVERY

Results = Mapping[str, Any]
_EXPONENT, _TOLERANCE = -0.5, 0.1


class Fit(NamedTuple):
    """Power law c width^exponent."""

    exponent: float
    error: float
    """Standard error of the exponent over the seeds."""
    factor: float


def judge(results: Results) -> list[Claim]:
    """Judge every claim from the results of all parts."""
    return [
        _kernels(results),
        _bounds(results),
        *(_hessian(results, name) for name in NETWORKS),
        _threshold(results),
        _width(results),
        _descent(results),
        _pl_ratio(results),
        _test_error(results),
    ]


def geometric_mean(values: Sequence[float]) -> float:
    """Geometric mean of positive numbers; what is not positive counts as 1e-300."""
    return float(np.exp(np.log(np.maximum(values, 1e-300)).mean()))


def hessian_fit(results: Results, name: str, last: int = 0) -> Fit:
    """Exponent of the Hessian norm in all or the ``last`` widths, with one fit per seed."""
    widths = np.array([int(width) for width in results["hessians"]][-last:])
    norms = np.array([results["hessians"][str(width)][name] for width in widths])
    slopes, offsets = np.polyfit(np.log(widths), np.log(norms), 1)
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    return Fit(float(slopes.mean()), float(error), float(np.exp(offsets.mean())))


def mean_losses(results: Results, width: str, name: str, kind: str) -> dict[int, float]:
    """Geometric mean over the seeds of the ``"training"`` or ``"test"`` loss, by T."""
    rows = results["fits"][width]
    return {
        int(count): geometric_mean(row[name][kind])
        for count, row in rows.items()
        if count != "learning rates"
    }


def threshold(results: Results, width: str, name: str) -> int:
    """Largest T up to which every training loss is near zero; 0 where there is none."""
    found = 0
    for count, loss in mean_losses(results, width, name, "training").items():
        if loss > results["settings"]["near_zero"]:
            break
        found = count
    return found


def crossing(results: Results, width: str, name: str) -> float:
    """T at which the mean training loss crosses the near-zero level, between grid points.

    Linear in the logarithms; the last T where no loss lies above the level, and the first where
    all do.
    """
    losses = mean_losses(results, width, name, "training")
    level = results["settings"]["near_zero"]
    counts = list(losses)
    above = next((i for i, count in enumerate(counts) if losses[count] > level), None)
    if above is None or above == 0:
        return float(counts[-1] if above is None else counts[0])
    x = np.log([losses[counts[above - 1]], losses[counts[above]]])
    y = np.log([counts[above - 1], counts[above]])
    return float(np.exp(np.interp(np.log(level), x, y)))


def late_rate(loss: Sequence[float], every: int = EVERY) -> tuple[float, float]:
    """Exponential rate per step over the second half of a loss, and R^2 of that fit.

    The loss has one entry for ``every`` so many steps.

    What has reached the rounding error is left out.
    """
    values: NDArray[np.float64] = np.array(loss)
    reached = np.flatnonzero(values < 1e-22 * values[0])
    end = int(reached[0]) if len(reached) else len(values)
    late = np.arange(end // 2, end)
    steps, logs = every * late, np.log(values[late])
    slope, offset = np.polyfit(steps, logs, 1)
    residual = logs - (slope * steps + offset)
    return float(-slope), float(1 - residual.var() / logs.var())


def _kernels(results: Results) -> Claim:
    wins, pairs, evidence = 0, 0, []
    for count, row in results["kernels"].items():
        base = np.array(row[FEED_FORWARD]["smallest"])
        for name in UNROLLED:
            wins += int((np.array(row[name]["smallest"]) > base).sum())
            pairs += len(base)
        means = {name: geometric_mean(row[name]["smallest"]) for name in NETWORKS}
        evidence.append(f"T = {count}: " + _listed(means, "{:.2g}"))
    return Claim(
        "At the start, the smallest eigenvalue of the tangent kernel of the unrolled networks is "
        "larger than that of the feed-forward network.",
        wins >= 0.95 * pairs,
        f"in {wins} of {pairs} pairs of one seed; geometric means " + "; ".join(evidence),
    )


def _bounds(results: Results) -> Claim:
    larger, valid, ratios = True, True, []
    for row in results["kernels"].values():
        means = {name: geometric_mean(row[name]["norm bound"]) for name in NETWORKS}
        larger &= all(means[name] > means[FEED_FORWARD] for name in UNROLLED)
        for name in NETWORKS:
            smallest, diagonal, norm = (
                np.array(row[name][key]) for key in ("smallest", "least diagonal", "norm bound")
            )
            valid &= bool(((smallest <= diagonal) & (diagonal <= norm)).all())
            ratios.append(geometric_mean(norm / smallest))
    return Claim(
        "The upper bound of that eigenvalue is larger for the unrolled networks, too.",
        larger and valid,
        f"eigenvalue <= least diagonal entry <= norm bound {'always' if valid else 'not always'}; "
        f"the norm bound is {min(ratios):.0e} to {max(ratios):.0e} times the eigenvalue, so it "
        "says little about its size",
    )


def _hessian(results: Results, name: str) -> Claim:
    fit = hessian_fit(results, name)
    late = hessian_fit(results, name, last=2).exponent
    return Claim(
        f"The Hessian norm of {name} falls as 1 / sqrt(width).",
        abs(fit.exponent - _EXPONENT) <= _TOLERANCE,
        f"exponent {fit.exponent:.3f} +- {fit.error:.3f}, counted as a success within "
        f"{_EXPONENT} +- {_TOLERANCE}; between the last two widths {late:.3f}",
    )


def _threshold(results: Results) -> Claim:
    holds, evidence = True, []
    for width in results["fits"]:
        found = {name: crossing(results, width, name) for name in NETWORKS}
        holds &= all(found[name] > found[FEED_FORWARD] for name in UNROLLED)
        evidence.append(f"width {width}: " + _listed(found))
    return Claim(
        "The unrolled networks fit more training samples to near-zero loss than the feed-forward "
        "network with as many parameters.",
        holds,
        "T at the crossing, " + "; ".join(evidence),
    )


def _width(results: Results) -> Claim:
    widths = list(results["fits"])
    found = {name: [crossing(results, width, name) for width in widths] for name in NETWORKS}
    return Claim(
        "That number of samples grows with the width.",
        all(np.all(np.diff(values) > 0) for values in found.values()),
        f"T at widths {', '.join(widths)}: "
        + ", ".join(
            f"{k} {' -> '.join(f'{v:.0f}' for v in values)}" for k, values in found.items()
        ),
    )


def _descent(results: Results) -> Claim:
    evidence, holds = [], True
    for name in NETWORKS:
        curves = results["descents"][name]["loss"]
        fits = [late_rate(curve) for curve in curves]
        drop = geometric_mean([curve[-1] / curve[0] for curve in curves])
        if name in UNROLLED:
            holds &= drop < 1e-3 and min(fit[1] for fit in fits) > 0.9
        rates = ", ".join(f"{rate:.1e}" for rate, _ in fits)
        evidence.append(f"{name} falls to {drop:.1e} of its loss, late rate {rates} per step")
    return Claim(
        "Gradient descent takes the unrolled networks to near-zero loss at an exponential rate.",
        holds,
        "; ".join(evidence),
    )


def _pl_ratio(results: Results) -> Claim:
    found = {}
    for name in NETWORKS:
        row = results["descents"][name]
        ratios = [
            min(path) / eigenvalue
            for path, eigenvalue in zip(row["PL ratio"], row["smallest eigenvalue"], strict=True)
        ]
        found[name] = min(ratios)
    return Claim(
        "Along that way the PL ratio stays above half the smallest eigenvalue at the start.",
        all(found[name] >= 0.5 for name in UNROLLED),
        "least PL ratio in units of that eigenvalue: " + _listed(found, "{:.2f}"),
    )


def _test_error(results: Results) -> Claim:
    width = list(results["fits"])[-1]
    means = {name: mean_losses(results, width, name, "test") for name in NETWORKS}
    wins = {
        name: sum(means[name][count] < means[FEED_FORWARD][count] for count in means[name])
        for name in (LISTA, ADMM)
    }
    last = max(means[LISTA])
    return Claim(
        "The expected error of the unrolled networks is smaller than that of the feed-forward "
        "network.",
        all(wins[name] == len(means[name]) for name in wins),
        f"smaller test error at {_listed(wins)} of {len(means[LISTA])} sizes T; at T = {last}: "
        + _listed({name: means[name][last] for name in NETWORKS}, "{:.3f}"),
    )


def _listed(values: Mapping[str, float], form: str = "{:.0f}") -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
