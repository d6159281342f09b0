"""The report: definitions, figures and tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastunroll.data.benchmark import SNR_DEFINITION
from fastunroll.experiments.lista.tables import Results, tables
from fastunroll.experiments.report import Listing, markdown

DOCUMENT = "report.md"

_DEFINITIONS = """\
NMSE is 10 log10(sum ||x - x*||^2 / sum ||x*||^2) over all test samples; the worst ones rule it, so
the median and the worst sample stand beside it. SNR is {snr}. Codes have 10 % non-zeros of unit
variance. Networks see fresh samples in every step, batches of 64; 1000 fixed samples choose the
weights to keep, and no training sees the test set. Training is layer by layer, as
`fastunroll.training.train_recovery` does by default; Step-LISTA is trained without true codes, on
the objective of the LASSO with lambda = 0.4, which ISTA and FISTA minimise, too. HyperLISTA is
searched on 250 of the 1000 samples, and then near by on as many fresh ones as are tested, with a
third of the evaluations. Steps are over all layers (evaluations of the first search for
HyperLISTA); seconds are wall-clock time of the training with one process per core.

Published numbers come with their source: read off a figure (within 1 to 2 dB), a published log, or
a run of published code. Their definitions of SNR and their dictionaries differ, so a decibel
either way says little."""

_SECTIONS = {
    "summary": (
        "Summary",
        "",
        "Numbers learned, steps and seconds are those of the first problem of the row; layers are "
        "trained one after the other, unless the steps are said to be of all layers at once.",
    ),
    "recovery": ("Recovery", "parameters", "Number of learned numbers against the error."),
    "layers": (
        "Error against the layer",
        "layers",
        "One curve per method; dashes: with support selection, or a variant.",
    ),
    "selection": (
        "Support selection",
        "",
        "The largest entries, 1.2 % of all more in each layer and at most 13 %, skip the "
        "shrinkage, so thresholds need not vanish for the codes to be unbiased.",
    ),
    "coupling": (
        "Weight coupling",
        "coupling",
        "A LISTA that recovers all codes must have W2 - (I - W1 A) and thresholds that tend to "
        "zero (Chen, Liu, Wang, Yin 2018). Here is what training finds by itself.",
    ),
    "coherence": (
        "Coherence of learned weights",
        "coherence",
        "The largest |w_i^T a_j|, i != j, with w_i^T a_i = 1. Training for the error need not make "
        "it small; ALISTA takes weights for which the sum of the squares is smallest.",
    ),
    "mismatch": (
        "Robustness to another distribution",
        "mismatch",
        "Networks of the problem without noise on test samples that differ in one respect: "
        "density (nominal 0.1), variance of the non-zeros (nominal 1), noise (nominal none), and "
        "measurements with a perturbed A that the network is not told. HyperLISTA with its nominal "
        "numbers, and searched again with samples of the problem at hand.",
    ),
    "robust": (
        "Robust ALISTA",
        "robust",
        "Dictionaries with an error of the given standard deviation in every entry (entries have "
        "0.063), scaled to unit columns; mean over several. Robust ALISTA has one set of "
        "parameters for all. All ALISTAs have the numbers trained for the nominal A.",
    ),
    "kappa": (
        "Condition number",
        "",
        "Singular values spaced evenly in their logarithm, then unit columns. Each network is "
        "trained for its dictionary.",
    ),
    "speed": (
        "Speed of training",
        "",
        "Fused layers against the reference backend, which is plain PyTorch, in turn in one "
        "process; medians.",
    ),
}


def document(results: Results) -> str:
    """Write the report in Markdown, from the results alone."""
    listings = tables(results)
    parts = [
        "# The LISTA family on the benchmark problem",
        "",
        _DEFINITIONS.format(snr=SNR_DEFINITION),
        "",
        markdown(_facts(results)),
    ]
    for name, found in listings.items():
        heading, figure, caption = _SECTIONS[name]
        parts += [f"# {heading}", "", caption, ""]
        for picture in [figure, "noise"] if figure == "layers" else [figure]:
            if picture:
                parts += [f"![{heading}](figures/{picture}.png)", ""]
        parts += [markdown(listing) for listing in found]
    quick = results["quick training"]
    parts += [
        f"ALISTA with support selection came to {quick['NMSE']:.2f} dB in {quick['seconds']:.1f} s "
        f"of training ({quick['steps']} steps in all, {quick['threads']} threads).",
        "",
    ]
    return "\n".join(parts)


def _facts(results: Results) -> Listing:
    settings: Mapping[str, Any] = results["settings"]
    size = {
        "budget": results["budget"],
        "problem": f"m = {settings['n_measurements']}, n = {settings['n_atoms']}, "
        f"K = {settings['n_layers']}, {settings['n_test']} test samples, seed {settings['seed']}",
    }
    rows = [[key, str(value)] for key, value in {**size, **results["facts"]}.items()]
    return Listing("Problem and machine", ["", ""], rows)
