"""Tables of the report, from the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastunroll.dictionary.pudle import GRADIENTS
from fastunroll.experiments.pudle import published
from fastunroll.experiments.pudle.local import TARGETS
from fastunroll.experiments.pudle.summary import Results
from fastunroll.experiments.report import Listing

_SHOWN_LAYERS = 8
"""Rows, about, of the table of gradients."""


def tables(results: Results) -> dict[str, list[Listing]]:
    """Tables behind every section of the report, by its name."""
    return {
        "gradients": [_gradients(results["gradients"]), _rates(results["summary"])],
        "trainings": [_trainings(results["trainings"])],
        "recovery": [_recovery(results["recovery"])],
        "speed": [_speed(results["speed"])],
        "denoising": [_denoising(results["denoising"])],
        "images": [_images(results)],
        "cscnet": [_cscnet(results["cscnet"]["training"])],
    }


def _gradients(found: Mapping[str, Any]) -> Listing:
    layers = found["layers"]
    every = max(1, len(layers) // _SHOWN_LAYERS)
    shown = sorted({*range(0, len(layers), every), len(layers) - 1})
    header = ["T", "codes"] + [f"{g} to {t}" for t in TARGETS for g in GRADIENTS]
    columns = [found["codes"], *(found["gradients"][t][g] for t in TARGETS for g in GRADIENTS)]
    rows = [[str(layers[k]), *(f"{column[k]:.2g}" for column in columns)] for k in shown]
    return Listing("Errors after T layers", header, rows)


def _rates(summary: Mapping[str, Any]) -> Listing:
    rows = [["codes z_T to z^", f"{summary['rate of the codes']:.4f}"]]
    rows += [
        [f"g_{name} to g^", f"{value:.4f}"]
        for name, value in summary["rates to the lasso gradient"].items()
    ]
    return Listing("Fitted slopes of ln(error) per layer", ["error", "slope"], rows)


def _trainings(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Listing:
    rows = [
        [
            depth,
            f"g_{gradient}",
            f"{row['errors'][0]:.3f}",
            f"{row['error']:.4f}",
            _number(published.TRAININGS.get(depth, {}).get(gradient)),
            str(row["epochs"][-1]),
            *_took(row),
        ]
        for depth, gradients in found.items()
        for gradient, row in gradients.items()
    ]
    header = ["T", "gradient", "start", "end", "published", "epochs", "seconds", "date"]
    return Listing("||D - D~||_F", header, rows)


def _recovery(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Listing:
    rows = [
        [
            sparsity,
            method,
            f"{row['errors'][0]:.3g}",
            f"{row['error']:.2e}",
            _number(published.RECOVERY.get(sparsity, {}).get(method), "{:.1e}"),
            f"{row['matched error']:.2e}",
            f"{row['code error']:.2e}",
            str(row["samples"][-1]),
            f"{row['processor seconds']:.0f}",
            *_took(row),
        ]
        for sparsity, methods in found.items()
        for method, row in methods.items()
    ]
    header = ["non-zeros", "method", "start", "end", "published", "matched", "codes", "samples"]
    header += ["processor s", "seconds", "date"]
    return Listing("Relative error of D", header, rows)


def _speed(found: Mapping[str, Any]) -> Listing:
    rows = []
    for name, seconds in found["step seconds"].items():
        sizes = (found["peak bytes"][name], found["kept bytes"][name])
        memory = ["" if size is None else f"{size / 2**20:.1f}" for size in sizes]
        rows.append([name, f"{1e3 * seconds:.0f}", *memory])
    header = ["candidate", "ms", "peak MiB", "MiB kept for the backward pass"]
    return Listing("A training step of g_ae-ls", header, rows)


def _denoising(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Listing:
    rows = [
        [
            kind,
            value,
            f"{row['paper']:.2f}",
            _number(published.DENOISING[kind].get(value), "{:.2f}"),
            f"{row['standard']:.2f}",
            f"{row['density']:.1%}",
            str(row["steps"]),
            f"{row['epochs']:.1f} of {published.EPOCHS}",
            *_took(row),
        ]
        for kind, values in found.items()
        for value, row in values.items()
    ]
    header = ["gradient", "lambda or threshold", "paper's PSNR", "published", "standard PSNR"]
    header += ["non-zeros", "steps", "epochs", "seconds", "date"]
    return Listing("Crops of the test images, dB", header, rows)


def _images(results: Results) -> Listing:
    found = {**results["whole images"], "CSCNet": results["cscnet"]["scores"]}
    rows = [
        [
            name,
            f"{row['standard']:.2f}",
            f"{published.CSCNET:.2f}" if name == "CSCNet" else "",
            f"{row['paper']:.2f}",
            f"{row['SSIM']:.4f}",
            str(row["images"]),
            *_took(row),
        ]
        for name, row in found.items()
    ]
    header = ["model", "PSNR, peak 1", "published", "PSNR, peak = maximum", "SSIM", "images"]
    return Listing("Whole test images, average over all shifts", [*header, "seconds", "date"], rows)


def _cscnet(found: Mapping[str, Any]) -> Listing:
    curve = found["curve"]
    rows = [
        [str(step), f"{seconds / 60:.0f}", f"{value:.2f}"]
        for step, seconds, value in zip(*curve.values(), strict=True)
    ]
    return Listing(
        "PSNR (dB) of held-out crops during the training", ["step", "minutes", "dB"], rows
    )


def _took(row: Mapping[str, Any]) -> tuple[str, str]:
    """Seconds on the clock, and the date at the end."""
    return f"{row['seconds']:.0f}", str(row["date"])


def _number(value: float | None, form: str = "{:g}") -> str:
    return "" if value is None else form.format(value)
