"""Figures of the PUDLE report: dictionaries and codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch.nn.functional import normalize

from fastunroll.dictionary import ConvolutionalPUDLE, match_atoms
from fastunroll.dictionary.mosaic import mosaic
from fastunroll.experiments.plots import panels
from fastunroll.experiments.pudle.recovery import DECAY, HARD, PLAIN
from fastunroll.experiments.pudle.samples import AtomProblem
from fastunroll.experiments.pudle.summary import Results
from fastunroll.io import load_model, load_tensors

_SHOWN_ATOMS = 40


def agreement(results: Results, models: Path, colours: Mapping[str, str]) -> Figure:
    """Cosines of true atoms with the learned ones that are matched with them."""
    s, sparsity = results["settings"], _middle(results)
    size = (s["recovery"]["n_measurements"], s["recovery"]["n_atoms"])
    problem = AtomProblem.make(*size, int(sparsity), s["seed"])
    true, start = problem.dictionary, problem.start(s["recovery"]["noise"], s["seed"])
    figure, (left, right) = panels(2, (10.2, 4.2))
    for name, colour in {"start": "#BBBBBB", **colours}.items():
        learned = start if name == "start" else _saved(models, sparsity, name)["dictionary"]
        found = normalize(match_atoms(learned, true).apply(learned), dim=0).double()
        # 1 - cosine as half a squared distance, which keeps its digits.
        distance = (found - true.double()).square().sum(dim=0).mul(0.5).sort().values
        right.plot(distance.numpy(), color=colour, label=name)
        if name == DECAY:
            cosines = (true.double().mT @ found)[:_SHOWN_ATOMS, :_SHOWN_ATOMS].abs()
    image = left.imshow(cosines.numpy(), cmap="Greys", vmin=0, vmax=1)
    left.grid(visible=False)
    left.set(xlabel="learned atom, matched", ylabel="true atom", title=f"|cosine|, {DECAY}")
    figure.colorbar(image, ax=left, shrink=0.85)
    right.set(yscale="log", xlabel="atom, best first", ylabel="1 - cosine with the true atom")
    right.set_title(f"{sparsity}-sparse")
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def codes(results: Results, models: Path, colours: Mapping[str, str]) -> Figure:
    """True and found code of a fresh sample: only its true and its found non-zeros."""
    sparsity, names = _middle(results), (PLAIN, DECAY, HARD)
    figure, row = panels(len(names), (10.5, 3.6))
    for axes, name in zip(row, names, strict=True):
        saved = _saved(models, sparsity, name)
        true, found = saved["true codes"].numpy(), saved["codes"].numpy()
        support = np.flatnonzero((true != 0) | (np.abs(found) > 1e-2))
        places = np.arange(len(support))
        axes.vlines(places, 0, found[support], color=colours[name], linewidth=1.4)
        axes.plot(places, true[support], "o", color="#333333", markerfacecolor="none", label="true")
        axes.plot(places, found[support], ".", color=colours[name], label="found")
        axes.axhline(0, color="#333333", linewidth=0.8)
        axes.set(xlabel="atom in either support", title=name, ylim=(-2.3, 2.3))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper right", fontsize=8, ncols=2)
    row[0].set_ylabel("code")
    return figure


def filters(shown: Mapping[str, Path]) -> Figure:
    """Filters of convolutional dictionaries, those of most contrast first."""
    figure, row = panels(len(shown), (4.2 * len(shown), 4.5))
    for axes, (title, path) in zip(np.atleast_1d(row), shown.items(), strict=True):
        model = load_model(path)
        assert isinstance(model, ConvolutionalPUDLE)
        with torch.no_grad():
            contrast = (model.dictionary - model.dictionary.mean(dim=0)).norm(dim=0)
            axes.imshow(mosaic(model.dictionary, contrast), cmap="gray", vmin=0, vmax=255)
        axes.set_title(title)
        axes.axis("off")
    return figure


def _middle(results: Results) -> str:
    """The sparsity that is shown."""
    found: list[str] = list(results["recovery"])
    return found[(len(found) - 1) // 2]


def _saved(models: Path, sparsity: str, method: str) -> dict[str, torch.Tensor]:
    return load_tensors(models / f"recovery-{sparsity}-{method}.safetensors")[0]
