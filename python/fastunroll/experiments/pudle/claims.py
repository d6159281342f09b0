"""The claims of the PUDLE paper, each judged by our own data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastunroll.experiments.claims import Claim
from fastunroll.experiments.pudle.denoising import DEC, HARD, LEAST_SQUARES
from fastunroll.experiments.pudle.recovery import ALTERNATING, DECAY, NOODL_METHOD, PLAIN
from fastunroll.experiments.pudle.recovery import HARD as HARD_METHOD
from fastunroll.experiments.pudle.summary import Results, best

_UNBIASED = 0.1
"""A method counts as unbiased if its error is at most this share of plain PUDLE's."""


def judge(results: Results) -> list[Claim]:
    """Judge every claim from the results."""
    return [
        _codes(results),
        _lasso_gradient(results),
        _true_gradient(results),
        _trainings(results["trainings"]),
        *(_recovery(sparsity, rows) for sparsity, rows in results["recovery"].items()),
        _noodl(results["recovery"]),
        _backward(results["denoising"]),
        _hard(results["denoising"]),
    ]


def _codes(results: Results) -> Claim:
    slope, layers = results["summary"]["rate of the codes"], results["gradients"]["layers"]
    first, last = (results["gradients"]["codes"][k] for k in (0, -1))
    return Claim(
        "Fig. 2: the codes of the encoder converge to those of the lasso at a linear rate.",
        slope < 0 and last < 1e-2 * first,
        f"||z_T - z^|| falls from {first:.2g} (T = {layers[0]}) to {last:.2g} (T = {layers[-1]}), "
        f"by {-math.expm1(slope):.1%} a layer in the mean",
    )


def _lasso_gradient(results: Results) -> Claim:
    rates, last = results["summary"]["rates to the lasso gradient"], _last(results, "lasso")
    return Claim(
        "Fig. 3: g_ae-lasso converges to the lasso gradient g^ faster than g_dec; g_ae-ls does not "
        "converge to it.",
        rates["ae-lasso"] < rates["dec"] and 10 * last["dec"] < last["ae-ls"],
        "slopes of ln(error): " + _listed(rates, "{:.4f}") + "; last errors: " + _listed(last),
    )


def _true_gradient(results: Results) -> Claim:
    last = _last(results, "true")
    return Claim(
        "Fig. 4a, b: with many layers, g_ae-ls is the closest one to the gradient at the true "
        "codes, g~.",
        min(last, key=lambda name: last[name]) == "ae-ls",
        "last errors: " + _listed(last),
    )


def _trainings(rows: Mapping[str, Mapping[str, Any]]) -> Claim:
    ends = {depth: {k: row["error"] for k, row in found.items()} for depth, found in rows.items()}
    return Claim(
        "Fig. 4c, d: g_ae-ls ends closer to the true dictionary than g_dec and g_ae-lasso.",
        all(min(row, key=lambda name: row[name]) == "ae-ls" for row in ends.values()),
        "||D - D~|| after the last epoch, "
        + "; ".join(f"T = {depth}: {_listed(row, '{:.3f}')}" for depth, row in ends.items()),
    )


def _recovery(sparsity: str, rows: Mapping[str, Mapping[str, Any]]) -> Claim:
    errors = {name: row["error"] for name, row in rows.items()}
    limit = _UNBIASED * errors[PLAIN]
    return Claim(
        f"Figs. 5, 6, {sparsity}-sparse: a decaying lambda and the hard threshold remove the bias "
        "that plain PUDLE and alternating minimisation share.",
        max(errors[DECAY], errors[HARD_METHOD]) <= limit and errors[ALTERNATING] > limit,
        "relative error of D: " + _listed(errors),
    )


def _noodl(recovery: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Claim:
    pairs = {
        f"{sparsity}-sparse": (rows[HARD_METHOD]["error"], rows[NOODL_METHOD]["error"])
        for sparsity, rows in recovery.items()
    }
    first = next(iter(pairs.values()))
    return Claim(
        "Figs. 5, 6: PUDLE with the hard threshold comes closer to the truth than NOODL where "
        "codes are sparsest.",
        first[0] < first[1],
        "hard against NOODL: "
        + ", ".join(f"{name} {ours:.2g} / {theirs:.2g}" for name, (ours, theirs) in pairs.items()),
    )


def _backward(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Claim:
    gains = {
        f"lambda = {value}": row["paper"] - table[DEC][value]["paper"]
        for value, row in table[LEAST_SQUARES].items()
    }
    return Claim(
        "Table 1: back-propagation through the encoder (g_ae-ls) denoises better than g_dec at "
        "every lambda.",
        min(gains.values()) > 0,
        "difference in dB: " + _listed(gains, "{:+.2f}"),
    )


def _hard(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Claim:
    found = {kind: table[kind][best(table[kind])]["paper"] for kind in (LEAST_SQUARES, HARD)}
    return Claim(
        "Table 1: for images, the soft threshold is better than the hard one.",
        found[LEAST_SQUARES] > found[HARD],
        "best PSNR in dB: " + _listed(found, "{:.2f}"),
    )


def _last(results: Results, target: str) -> dict[str, float]:
    """Error of each gradient with the most layers."""
    return {name: row[-1] for name, row in results["gradients"]["gradients"][target].items()}


def _listed(values: Mapping[str, float], form: str = "{:.2g}") -> str:
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
