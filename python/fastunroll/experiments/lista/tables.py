"""Tables of the report, from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastunroll.experiments.lista.baselines import LEAST_SQUARES
from fastunroll.experiments.lista.names import PROBLEMS, PUBLISHED, TITLES, title
from fastunroll.experiments.lista.training import part_name
from fastunroll.experiments.report import Listing

Results = Mapping[str, Any]

_SELECTION = (
    ("lista", "lista-ss"),
    ("lista-cp", "lista-cpss"),
    ("tilista", "tilista-ss"),
    ("alista", "alista-ss"),
)
_SHOWN_LAYERS = (1, 2, 4, 6, 8, 10, 12, 14, 16)


def of_problem(results: Results, variant: str) -> dict[str, Mapping[str, Any]]:
    """Results of the solvers and of all networks that were trained on a problem, in order."""
    networks = results["networks"]
    solvers = {k: v for k, v in results["baselines"][variant].items() if k != LEAST_SQUARES}
    trained = {
        model: networks[part_name(model, variant)]
        for model in TITLES
        if part_name(model, variant) in networks
    }
    return {**solvers, **trained}


def tables(results: Results) -> dict[str, list[Listing]]:
    """Tables behind every section of the report, by its name."""
    kappas = [name for name in results["baselines"] if name.startswith("kappa")]
    found = {
        "summary": [summary(results)],
        "recovery": [_scores(results, name) for name in results["baselines"] if name not in kappas],
        "layers": [_layers(results, name) for name in results["baselines"] if name not in kappas],
        "selection": [_selection(results)],
        "coupling": [_coupling(results["coupling"])],
        "coherence": [_coherence(results["coherence"])],
        "mismatch": [
            _by_value(f"NMSE (dB) against {name}", name, panel)
            for name, panel in results["mismatch"].items()
        ],
        "robust": [_by_value("NMSE (dB) against the perturbation", "std", results["robust"])],
        "speed": [_speed(results["step times"])],
    }
    if kappas:
        found["kappa"] = [_kappa(results, ["noiseless", *kappas])]
    return found


def summary(results: Results) -> Listing:
    """NMSE of every method on the problems of every noise level, and what it took."""
    variants = [name for name in results["baselines"] if not name.startswith("kappa")]
    columns = {variant: of_problem(results, variant) for variant in variants}
    rows = []
    for name in dict.fromkeys(name for column in columns.values() for name in column):
        found = [columns[variant].get(name, {}) for variant in variants]
        first = next(row for row in found if row)
        rows.append(
            [
                title(name),
                *(decibels(row.get("NMSE")) for row in found),
                str(first.get("parameters", "")),
                steps(first),
                f"{first['seconds']:.0f}" if "seconds" in first else "",
            ]
        )
    header = ["method", *map(PROBLEMS.__getitem__, variants), "numbers", "steps", "seconds"]
    return Listing("NMSE (dB) of all methods", header, rows)


def decibels(value: float | None) -> str:
    """Two digits after the point; empty where there is no value."""
    return "" if value is None else f"{value:.2f}"


def steps(row: Mapping[str, Any]) -> str:
    """Steps of a training, and whether it took all layers at once; empty for a solver."""
    at_once = " at once" if row.get("schedule") == "end-to-end" else ""
    return f"{row['steps']}{at_once}" if "steps" in row else ""


def _scores(results: Results, variant: str) -> Listing:
    published = PUBLISHED.get(variant, {})
    header = ["method", "NMSE", "median", "worst", "published", "numbers", "steps", "seconds"]
    floor = results["baselines"][variant][LEAST_SQUARES]
    rows = [
        [
            title(name),
            *(decibels(row[key]) for key in ("NMSE", "median", "worst")),
            published.get(name, ""),
            str(row.get("parameters", "")),
            steps(row),
            f"{row['seconds']:.0f}" if "seconds" in row else "",
        ]
        for name, row in (of_problem(results, variant) | {LEAST_SQUARES: floor}).items()
    ]
    return Listing(f"NMSE (dB) after all layers, {PROBLEMS[variant]}", header, rows)


def _layers(results: Results, variant: str) -> Listing:
    rows = of_problem(results, variant)
    n_layers = len(next(iter(rows.values()))["layers"]) - 1
    shown = [k for k in _SHOWN_LAYERS if k <= n_layers]
    body = [[title(n), *(decibels(row["layers"][k]) for k in shown)] for n, row in rows.items()]
    return Listing(
        f"NMSE (dB) against the layer, {PROBLEMS[variant]}", ["method", *map(str, shown)], body
    )


def _selection(results: Results) -> Listing:
    networks = results["networks"]
    rows = []
    for pair in _SELECTION:
        names = [part_name(model, "noiseless") for model in pair]
        if all(name in networks for name in names):
            plain, selected = (networks[name]["NMSE"] for name in names)
            rows.append([title(pair[0]), *map(decibels, (plain, selected, selected - plain))])
    header = ["method", "without", "with support selection", "difference"]
    return Listing("Support selection, NMSE (dB), no noise", header, rows)


def _kappa(results: Results, variants: Sequence[str]) -> Listing:
    networks = results["networks"]
    models = dict.fromkeys(model for model in TITLES if part_name(model, variants[1]) in networks)
    columns = {name: of_problem(results, name) for name in variants}
    rows = [
        [title(name), *(decibels(columns[v].get(name, {}).get("NMSE")) for v in variants)]
        for name in ("ISTA", "FISTA", *models)
    ]
    header = ["method", "Gaussian", *(PROBLEMS[name].split()[-1] for name in variants[1:])]
    return Listing("NMSE (dB) against the condition number of A, no noise", header, rows)


def _coupling(found: Mapping[str, Sequence[float]]) -> Listing:
    columns = [found[key] for key in ("spectral", "relative", "thresholds")]
    body = [
        [str(layer), *(f"{v:.3g}" for v in row)]
        for layer, row in enumerate(zip(*columns, strict=True), start=1)
    ]
    header = ["layer", "spectral norm", "relative", "threshold"]
    return Listing("W2 - (I - W1 A) and thresholds of the trained LISTA", header, body)


def _coherence(found: Mapping[str, Sequence[float]]) -> Listing:
    body = [
        [title(name), f"{values[0]:.3f}", f"{values[-1]:.3f}"] for name, values in found.items()
    ]
    header = ["weights", "first layer", "last layer"]
    return Listing("Generalised coherence of the weights with the dictionary", header, body)


def _by_value(heading: str, label: str, found: Mapping[str, Sequence[float]]) -> Listing:
    curves = {name: values for name, values in found.items() if name != "values"}
    rows = zip(found["values"], *curves.values(), strict=True)
    body = [[f"{value:g}", *map(decibels, row)] for value, *row in rows]
    return Listing(heading, [label, *curves], body)


def _speed(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Listing:
    header, rows = ["method", "batch", "fused", "reference", "ratio"], []
    for name, sizes in found.items():
        for size, times in sizes.items():
            row = [f"{times[key]:.2f}" for key in header[2:]]
            rows.append([title(name), size, *row])
    return Listing("Milliseconds of a training step of all layers", header, rows)
