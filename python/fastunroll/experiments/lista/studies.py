"""Studies of the trained networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from fastunroll.experiments.lista.baselines import baselines
from fastunroll.experiments.lista.learned import coherences, coupling
from fastunroll.experiments.lista.mismatch import mismatch, panels
from fastunroll.experiments.lista.robust import compare_robust, train_robust
from fastunroll.experiments.lista.settings import ListaSettings
from fastunroll.experiments.lista.speed import quick_training, step_times
from fastunroll.experiments.lista.training import model_path, part_name
from fastunroll.experiments.store import Store
from fastunroll.io import load_model
from fastunroll.nn import ALISTA, LISTA, LISTACP, HyperLISTA, TiLISTA
from fastunroll.nn.prox_gradient import ProxGradientNetwork

_VARIANT = "noiseless"


def study(
    output: Path,
    s: ListaSettings,
    networks: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """Run all studies of the networks that `train` left in a folder, each a part of its own.

    They look at the networks of the noiseless problem and need LISTA, ALISTA with support
    selection, HyperLISTA and one network with learned weights.
    """
    problem = s.problem(_VARIANT)
    trained = {
        name: load_model(model_path(output, name, _VARIANT))
        for name in dict.fromkeys(training.model for training in s.trainings)
        if part_name(name, _VARIANT) in networks
    }
    lista, alista, hyperlista = (trained[name] for name in ("lista", "alista-ss", "hyperlista"))
    assert isinstance(lista, LISTA)
    assert isinstance(alista, ALISTA)
    assert isinstance(hyperlista, HyperLISTA)
    common = {
        "seed": s.seed,
        "size": [s.n_measurements, s.n_atoms, s.n_test, s.n_layers],
    }

    def store(uses: Iterable[str], key: object) -> Store:
        known = {name: networks[part_name(name, _VARIANT)]["NMSE"] for name in uses}
        return Store(output / "parts", {**common, "networks": known, "settings": key})

    def part(
        name: str, compute: Any, uses: Iterable[str] = (), key: object = None
    ) -> dict[str, Any]:
        """One part, computed again if a network that it ``uses`` or its settings have changed."""
        console.print(f"[bold]{name}[/bold]")
        return store(uses, key).part(name.replace(" ", "-"), compute)

    of_robust = (["alista-ss"], s.robust.__dict__)

    def robust() -> dict[str, Any]:
        directory = store(*of_robust).run("robust")
        network = train_robust(problem, alista, s.robust, s.seed, directory, progress=False)
        return compare_robust(problem, network, alista, s.robust, s.seed)

    fused = {k: net for k, net in trained.items() if isinstance(net, ProxGradientNetwork)}
    learned = {k: net for k, net in trained.items() if isinstance(net, LISTACP | TiLISTA)}
    variants = dict.fromkeys(v for training in s.trainings for v in training.variants)
    return {
        "baselines": {
            name: part(f"baselines {name}", partial(baselines, s.problem(name), s.n_layers))
            for name in variants
        },
        "coupling": part("coupling", partial(coupling, lista), ["lista"]),
        "coherence": part("coherence", partial(coherences, learned), learned),
        "quick training": part(
            "quick training", partial(quick_training, problem, s.n_layers, s.quick_steps)
        ),
        "step times": part(
            "step times", partial(step_times, problem, fused, s.timing_rounds), fused
        ),
        "robust": part("robust", robust, *of_robust),
        "mismatch": {
            name: part(
                f"mismatch {name}",
                partial(mismatch, panel, hyperlista, alista, s.panels, s.seed),
                ["hyperlista", "alista-ss"],
                s.panels.__dict__,
            )
            for name, panel in panels(problem.training, s.panels, s.seed).items()
        },
    }
