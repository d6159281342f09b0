"""The report: claims with verdicts, figures and tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastunroll.experiments.pudle import published
from fastunroll.experiments.pudle.claims import judge
from fastunroll.experiments.pudle.summary import Results
from fastunroll.experiments.pudle.tables import tables
from fastunroll.experiments.report import Listing, markdown

DOCUMENT = "report.md"

_TITLE = "# PUDLE: dictionary learning by back-propagation through the encoder"

_SETTING = """\
The experiments of Tolooshams, Ba, "Stable and Interpretable Unrolled Dictionary Learning", TMLR
2022 (arXiv 2106.00058), and a model of the shape of CSCNet (Simon, Elad, "Rethinking the CSC Model
for Natural Images", NeurIPS 2019). Verdicts are computed from `results.json`;
`fastunroll reproduce pudle --check` compares the results with `targets.toml`. Published numbers
are those of the authors' result files; the random numbers behind them are others than ours.

Synthetic samples are x = D~ z~ without noise, with s entries +-U(1, 2) at random places of z~ and
normal columns of D~, scaled to norm 1; learning starts at D~ with normal noise. The columns keep
the norm 1. "matched" errors are those after the permutation and the signs of the Hungarian method,
the others compare atoms in the order they have, as the paper does. Seconds are wall-clock time of
one thread, which other work on the machine makes longer; seconds of the processor are those of
the part alone."""

_SECTIONS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "gradients": (
        "Codes and gradients, layer by layer (Figs. 2, 3, 4a, 4b)",
        ("codes", "gradients"),
        "Near the true dictionary, in float64. g_dec, g_ae-lasso and g_ae-ls after T layers are "
        "compared with the gradient of 1/2 ||x - D z||^2 in D at three codes: z^, the solution of "
        "the lasso for D (g^); z*, that for the true D~ (g*); and the true codes z~ (g~). Slopes "
        "are least-squares fits of ln(error) to all layers; the slowest samples rule the "
        "last layers.",
    ),
    "trainings": (
        "Where the three gradients lead (Fig. 4c, 4d)",
        ("trainings",),
        "Adam on all samples at once, far from the true dictionary. {training_samples}",
    ),
    "recovery": (
        "A large dictionary from fresh samples (Figs. 5, 6)",
        ("recovery", "agreement", "sparse-codes"),
        "g_ae-ls with a fixed lambda (plain), with lambda_k = lambda beta^k in layer k where beta "
        "falls by {decay:.1%} after every tenth of the updates (decay), and with a hard "
        "threshold; NOODL; and alternating minimisation with the lasso, which sees all of its "
        "{alternating_samples} samples in every iteration. Errors of codes are those of fresh "
        "samples.",
    ),
    "speed": (
        "Time and memory of an update",
        (),
        "Ours and the same step in plain PyTorch, in turns in one process: {time_ratio:.1f} times "
        "as fast as the faster of the two eager forms; the leaner one needs {memory} our memory at "
        "its peak, and keeps {kept:.1f} times as much for the backward pass. {density:.1%} of the "
        "codes are not 0; gradients differ by {gradient_error:.0e} of their norm.",
    ),
    "denoising": (
        "Denoising of crops (Table 1)",
        ("denoising", "filters"),
        "{n_filters} filters of {filter_size} x {filter_size}, stride {stride}, {n_layers} layers, "
        "noise of 25 / 255. All runs are cut short: {n_steps} steps in place of the paper's "
        "{epochs} epochs, with a learning rate that is higher and falls. The paper's PSNR has the "
        "largest pixel of each crop as its peak; the standard one has 1. Filters are shown those "
        "of most contrast first.",
    ),
    "images": (
        "Whole images",
        ("images",),
        "Average over all shifts of the grid of filters. The picture: the models on "
        "one test image.",
    ),
    "cscnet": (
        "The CSCNet-shaped model",
        ("cscnet",),
        "{cscnet}",
    ),
}


def document(results: Results) -> str:
    """Write the report in Markdown, from the results alone."""
    lines = [_TITLE, "", _SETTING, "", markdown(_facts(results)), "## Claims", ""]
    for claim in judge(results):
        verdict = "Holds." if claim.holds else "Does not hold."
        lines.append(f"* {claim.text} **{verdict}** {claim.evidence}.")
    words = _words(results)
    for name, listings in tables(results).items():
        heading, pictures, caption = _SECTIONS[name]
        lines += ["", f"# {heading}", "", caption.format(**words), ""]
        for picture in pictures:
            lines += [f"![{heading}](figures/{picture}.png)", ""]
        lines += [markdown(listing) for listing in listings]
    return "\n".join(lines)


def _words(results: Results) -> dict[str, Any]:
    """Numbers that the captions name."""
    s, speed = results["settings"], results["speed"]
    samples, ratio = s["local"]["n_training_samples"], speed.get("memory ratio")
    trained, scores = results["cscnet"]["training"], results["cscnet"]["scores"]
    return {
        **s["denoising"],
        "training_samples": f"{samples} samples" + " (the paper: 10000)." * (samples != 10_000),
        "decay": 1 - s["recovery"]["decay"],
        "alternating_samples": s["recovery"]["alternating_samples"],
        "time_ratio": speed["time ratio"],
        "memory": "an unknown multiple of" if ratio is None else f"{ratio:.1f} times",
        "kept": speed["kept ratio"],
        "density": speed["density"],
        "gradient_error": speed["gradient error"],
        "epochs": published.EPOCHS,
        "cscnet": _cscnet(s["cscnet"], trained, scores),
    }


def _cscnet(s: Mapping[str, Any], trained: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    size, count = s["filter_size"], scores["images"]
    stages = ", then ".join(map(_stage, s["stages"]))
    return (
        f"{s['n_filters']} filters of {size} x {size}, stride {s['stride']}, {s['n_layers']} "
        f"layers, three sets of filters and a threshold per filter. {stages}; in all "
        f"{trained['crops']} crops of {trained['training images']} images, in "
        f"{trained['seconds'] / 60:.1f} minutes. This leads to {scores['standard']:.2f} dB on "
        f"{count} whole images; {scores['density']:.0%} of the codes are not 0. The published "
        f"{published.CSCNET:.2f} dB (BSD68) come from a much longer training. The curve is that of "
        f"the middles of {s['n_held_out']} training images that the training does not see."
    )


def _stage(s: Mapping[str, Any]) -> str:
    crops = f"batches of {s['batch_size']}" if s["batch_size"] > 1 else "single crops"
    shifts = "" if s["n_shifts"] is None else f" by the mean over {s['n_shifts']} random shifts"
    return f"{s['n_steps']} steps with {crops}{shifts}"


def _facts(results: Results) -> Listing:
    shown = {"budget": results["budget"], "seed": results["settings"]["seed"]}
    rows = [[key, str(value)] for key, value in {**shown, **results["facts"]}.items()]
    return Listing("Machine", ["", ""], rows)
