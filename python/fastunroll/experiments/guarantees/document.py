"""The document of the results: claims with verdicts, figures, and the tables behind them."""

from __future__ import annotations

from collections.abc import Mapping

from fastunroll.experiments.guarantees.claims import (
    Results,
    crossing,
    geometric_mean,
    hessian_fit,
    judge,
    late_rate,
    mean_losses,
    threshold,
)
from fastunroll.experiments.guarantees.networks import NETWORKS
from fastunroll.experiments.report import Listing, markdown, number

DOCUMENT = "README.md"

_TITLE = "# Optimisation guarantees of unrolled networks, measured"

_SETTING = """\
Networks: LISTA and ADMM-CSNet with smooth shrinkage (threshold 1) in the scaling of the neural
tangent kernel, and a feed-forward network of the same depth and, to within rounding of its hidden
width, the same number of parameters. All weights begin as N(0, 1), and all networks are read out as
f(y) = x_K / sqrt(n): it is this factor that makes the theory's exponent of the Hessian norm -1/2.
The task is sparse recovery with n / 2 measurements of unit mean square. All losses are squared
errors relative to that of the estimate 0. Source of the claims: Shah, Pradhan, Pu, Randhi,
Rodrigues, Eldar, "Optimization guarantees of unfolded ISTA and ADMM networks with smooth
soft-thresholding", IEEE TSP 72, 2024 (arXiv 2309.06195). The sizes are ours, smaller than the
paper's; verdicts are computed from `results.json`, and
`fastunroll reproduce guarantees --check --output FOLDER` compares them with this page."""

_SECTIONS = {
    "samples": (
        "Training and test loss against the number of samples",
        "Full-batch Adam with a budget of steps and, for each network, the best of the learning "
        "rates tried. Lines: geometric mean over the seeds; bands: their range. A loss above the "
        "near-zero level says that this budget did not suffice, not that no parameters would.",
    ),
    "kernel": (
        "Smallest eigenvalue of the tangent kernel",
        "All outputs of T samples, float64. The least diagonal entry bounds the eigenvalue from "
        "above, and so does a product of the norms of the weights, in which unrolled layers have "
        "the energy of the measurements as an extra term.",
    ),
    "hessian": (
        "Hessian norm against the width",
        "Largest norm over the outputs whose last shrinkage is most curved, at a random input of a "
        "fixed number of measurements, by power iteration. Points: geometric mean over the seeds "
        "with its standard error; the exponent is the mean of one fit per seed. The theory's bound "
        "is for large widths. The block of the last layer falls as 1 / sqrt(n), with the factor "
        "s''(u) ||x||^2 / n, which is small where the signal is weak; the blocks that couple two "
        "layers fall as 1 / n. Where these are the larger ones, the exponent is nearer to -1: so "
        "it is in the feed-forward network, whose signal fades from layer to layer, while unrolled "
        "layers see the measurements again. The exponent between the last two widths shows how far "
        "that transition has come.",
    ),
    "descent": (
        "Gradient descent",
        "A few samples, float64, step a quarter of 1 / ||Hessian of the loss|| at the start, "
        "halved until the loss rises in no step. One line per seed; every tenth step is kept.",
    ),
    "fourier": (
        "Undersampled Fourier measurements",
        "Blocks of a photograph from 30 % of their Fourier coefficients: the classical ADMM with "
        "its best lambda and rho on training images, and the same network trained from there, with "
        "soft and with piecewise-linear shrinkage. A small example, not a claim of the paper.",
    ),
}


def document(results: Results) -> str:
    """Text of the document, in Markdown."""
    lines = [_TITLE, "", _SETTING, "", "## Claims", ""]
    for claim in judge(results):
        verdict = "Holds." if claim.holds else "Does not hold."
        lines.append(f"* {claim.text} **{verdict}** {claim.evidence}.")
    found = tables(results)
    for name, (title, caption) in _SECTIONS.items():
        lines += ["", f"## {title}", "", f"![{title}](figures/{name}.png)", "", caption, ""]
        lines += [markdown(listing).replace("## ", "### ", 1) for listing in found[name]]
    s, facts = results["settings"], results["facts"]
    lines += ["", "## Settings", ""]
    lines += [f"* {key.replace('_', ' ')}: {_value(value)}" for key, value in s.items()]
    lines += ["", "## Machine", ""]
    lines += [f"* {key}: {value}" for key, value in facts.items()]
    return "\n".join(lines) + "\n"


def tables(results: Results) -> dict[str, list[Listing]]:
    """Tables of each section."""
    kernels, descents = results["kernels"], results["descents"]
    return {
        "samples": [_losses(results, width) for width in results["fits"]],
        "kernel": [
            Listing(
                "Geometric means over the seeds",
                ["T", "network", "smallest", "least diagonal", "norm bound", "mean diagonal"],
                [
                    [count, name, *(f"{geometric_mean(v):.3g}" for v in row[name].values())]
                    for count, row in kernels.items()
                    for name in NETWORKS
                ],
            )
        ],
        "hessian": [
            Listing(
                "Geometric mean of the norm, and exponent",
                ["network", *results["hessians"], "exponent", "standard error", "last two widths"],
                [
                    [
                        name,
                        *(f"{geometric_mean(r[name]):.3g}" for r in results["hessians"].values()),
                        *(f"{x:.3f}" for x in hessian_fit(results, name)[:2]),
                        f"{hessian_fit(results, name, last=2).exponent:.3f}",
                    ]
                    for name in NETWORKS
                ],
            )
        ],
        "descent": [
            Listing(
                "Every seed",
                [
                    "network",
                    "step",
                    "smallest eigenvalue",
                    "least PL ratio",
                    "largest Lipschitz ratio",
                    "last / first loss",
                    "late rate per step",
                    "R² of the rate",
                ],
                [
                    [
                        name,
                        *(
                            f"{x:.3g}"
                            for x in (
                                row["learning rate"][seed],
                                row["smallest eigenvalue"][seed],
                                min(row["PL ratio"][seed]),
                                max(row["Lipschitz ratio"][seed]),
                                curve[-1] / curve[0],
                                *late_rate(curve),
                            )
                        ),
                    ]
                    for name, row in descents.items()
                    for seed, curve in enumerate(row["loss"])
                ],
            )
        ],
        "fourier": [
            Listing(
                "PSNR on the test image",
                ["method", "dB"],
                [[name, f"{x:.2f}"] for name, x in results["fourier"]["PSNR dB"].items()],
            )
        ],
    }


def _losses(results: Results, width: str) -> Listing:
    """Losses of one width, and where they leave the near-zero level."""
    header = ["network", "loss", "learning rate"]
    rows: list[list[str]] = []
    for name in NETWORKS:
        for kind in ("training", "test"):
            losses = mean_losses(results, width, name, kind)
            rate = results["fits"][width]["learning rates"][name]
            row = [name, kind, f"{rate:g}", *(f"{loss:.3g}" for loss in losses.values())]
            near = [str(threshold(results, width, name)), number(crossing(results, width, name))]
            rows.append(row + (near if kind == "training" else ["", ""]))
    header += [f"T = {count}" for count in losses] + ["near zero up to", "crossing"]
    return Listing(f"Width {width}: geometric means over the seeds", header, rows)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key.replace('_', ' ')} {entry}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
