"""The LPG-Net experiments: recipe, tuning, intervals, resume, claims and report."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from fastunroll.data import make_sparse_problem
from fastunroll.experiments import lpg_net, synthetic
from fastunroll.experiments.claims import judge
from fastunroll.experiments.conformal import (
    conformal_half_width,
    coverage,
    gaussian_half_width,
)
from fastunroll.experiments.lpg_net import LpgNetResults, run, summary_table
from fastunroll.experiments.methods import Method, tune
from fastunroll.experiments.recipe import Recipe, absolute_error, train_lpg_net
from fastunroll.experiments.settings import settings_of
from fastunroll.experiments.store import Store
from fastunroll.experiments.synthetic import Bench
from fastunroll.io import load_model
from fastunroll.metrics import mean_absolute_error
from fastunroll.nn import LPGNet

FIGURES = {"objective", "sparsity", "snr", "latency", "ablation", "calibration", "denoising"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, LpgNetResults]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run(folder, budget="quick", progress=False)


# Intervals


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.99])
def test_conformal_coverage_of_heavy_tailed_residuals(level: float) -> None:
    rng = np.random.default_rng(0)
    known, new = (torch.from_numpy(rng.standard_t(2, 20_000)) for _ in range(2))
    width = conformal_half_width(known, level)
    assert coverage(new, width) == pytest.approx(level, abs=0.015)
    if level == 0.5:
        assert coverage(new, gaussian_half_width(known, level)) > level + 0.1


def test_conformal_rank() -> None:
    residuals = torch.tensor([-3.0, 1.0, 2.0, -4.0])
    # ceil(5 * 0.5) = 3rd smallest; ceil(5 * 0.9) = 5 is more than there are.
    assert conformal_half_width(residuals, 0.5) == 3.0
    assert conformal_half_width(residuals, 0.9) == math.inf


def test_gaussian_interval() -> None:
    assert gaussian_half_width(torch.tensor([2.0, -2.0]), 0.95) == pytest.approx(2 * 1.959964)


@pytest.mark.parametrize("rule", [conformal_half_width, gaussian_half_width])
def test_bad_intervals(rule) -> None:
    with pytest.raises(ValueError, match="level"):
        rule(torch.ones(3), 1.0)
    with pytest.raises(ValueError, match="residuals"):
        rule(torch.ones(0), 0.5)


# Tuning and training


def test_tuning_finds_the_best_of_a_fine_grid() -> None:
    problem = make_sparse_problem(20, 30, snr_db=15.0)
    b, x = problem.sample(200, torch.Generator().manual_seed(1))

    def error_of(method: Method) -> float:
        return mean_absolute_error(method.solve(b, problem.dictionary).codes, x)

    def error(codes: torch.Tensor) -> float:
        return mean_absolute_error(codes, x)

    tuned = tune("FISTA", b, problem.dictionary, error, 20)
    fine = min(error_of(Method("FISTA", (lam,), 20)) for lam in np.geomspace(1e-3, 2, 400).tolist())
    assert error_of(tuned) <= 1.005 * fine
    admm = tune("ADMM", b, problem.dictionary, error, 20, points=5)
    assert len(admm.parameters) == 2
    assert error_of(admm) < error_of(Method("ADMM", (admm.parameters[0], 10.0), 20))


def test_methods_run_exactly_their_iterations() -> None:
    problem = make_sparse_problem(20, 30)
    b = problem.sample(4, torch.Generator().manual_seed(1)).measurements
    for name, parameters in (("ISTA", (0.1,)), ("FISTA", (0.1,)), ("ADMM", (0.1, 0.5))):
        result = Method(name, parameters, 7).solve(b, problem.dictionary)
        assert result.n_iterations == 7


def test_the_recipe_beats_ista_of_equal_depth() -> None:
    settings = settings_of("quick", seed=0)
    bench = Bench(settings)
    recipe = Recipe(growth_steps=40, steps=120)
    network = LPGNet.from_dictionary(
        bench.problem.dictionary, bench.validation.measurements, n_layers=settings.n_layers
    )
    train_lpg_net(
        network,
        lambda generator: bench.mixture(recipe.batch, generator),
        absolute_error,
        bench.validation,
        recipe,
        objective_weight=0.1,
    )
    with torch.no_grad():
        ours = mean_absolute_error(network(bench.test.measurements), bench.test.target)
    ista = bench.methods["ISTA"].encoder(bench.prepared)(bench.test.measurements)
    assert ours < 0.9 * mean_absolute_error(ista, bench.test.target)


def test_the_mixture_covers_its_ranges() -> None:
    bench = Bench(settings_of("quick", seed=0))
    b, x = bench.mixture(4001, bench.generator(9))
    assert len(b) == len(x) == 4001
    low, high = bench.settings.density_range
    assert float((x != 0).double().mean()) == pytest.approx((low + high) / 2, rel=0.1)
    signal = x @ bench.problem.dictionary.T
    used = signal.any(dim=1)
    snr = 10 * (signal.square().sum(1) / (b - signal).square().sum(1))[used].log10()
    low, high = bench.settings.snr_range
    assert float(snr.mean()) == pytest.approx((low + high) / 2, abs=1.0)
    assert float(snr.quantile(0.05)) < low + 5
    assert float(snr.quantile(0.95)) > high - 5
    again = bench.mixture(4001, bench.generator(9)).measurements
    assert torch.equal(again, b)


# Store


def test_a_part_is_computed_once_for_its_settings(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> dict[str, tuple[int, ...]]:
        calls.append(1)
        return {"a": (1, 2)}

    for settings, expected in (({"x": 1}, 1), ({"x": 1}, 1), ({"x": 2}, 2), ({"x": 2}, 2)):
        assert Store(tmp_path, settings).part("p", compute) == {"a": [1, 2]}
        assert len(calls) == expected
    needed = tmp_path / "model"
    Store(tmp_path, {"x": 2}).part("p", compute, [needed])
    assert len(calls) == 3
    (tmp_path / "p.json").write_text("{ broken")
    Store(tmp_path, {"x": 2}).part("p", compute)
    assert len(calls) == 4


# The whole run


def test_results(finished) -> None:
    folder, results = finished
    assert set(results.parts) == FIGURES | {"comparison"}
    assert results.report == folder / "report.html"
    settings = results.settings
    assert len(results.parts["objective"]["F"]["LPG-Net"]) == settings.n_layers + 1
    assert len(results.parts["snr"]["MAE"]["ADMM, retuned"]) == len(settings.snrs)
    assert len(results.parts["latency"]["microseconds"]["ISTA"]) == settings.n_latency
    minimum = results.parts["objective"]["minimum"]
    assert all(curve[-1] > 0.999 * minimum for curve in results.parts["objective"]["F"].values())
    scores = results.parts["comparison"]["scores"]
    network = load_model(folder / "models" / "full.safetensors")
    bench = Bench(settings)
    with torch.no_grad():
        codes = network(bench.test.measurements)
    assert scores["LPG-Net"]["MAE"] == pytest.approx(mean_absolute_error(codes, bench.test.target))


def test_a_finished_run_is_not_computed_again(finished, monkeypatch) -> None:
    folder, results = finished

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    for name in ("train_variant", "comparison", "sweep", "latency", "denoising", "calibration"):
        monkeypatch.setattr(lpg_net, name, refuse)
    again = run(folder, budget="quick", progress=False)
    assert again.parts == results.parts
    np.testing.assert_array_equal(again.pictures["LPG-Net"], results.pictures["LPG-Net"])
    with pytest.raises(AssertionError, match="computed again"):
        run(folder, budget="quick", seed=1, progress=False)


def test_the_report_needs_nothing_else(finished) -> None:
    _, results = finished
    page = results.report.read_text(encoding="utf-8")
    sources: list[str] = []
    tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            sources.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Parser().feed(page)
    assert len(sources) == tags.count("img") == len(FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "script" not in tags
    assert not re.search(r"https?://|url\(|@import", page)
    for claim in results.claims:
        assert claim.text.split(":")[0].split("(")[0].strip() in page
    assert results.facts["processor"] in page


def test_tables(finished) -> None:
    folder, results = finished
    with (folder / "tables" / "snr-1.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[:2] == ["SNR dB", "LPG-Net"]
    found = [float(row[1]) for row in rows]
    np.testing.assert_allclose(found, results.parts["snr"]["MAE"]["LPG-Net"], rtol=1e-3)
    assert "| method |" in (folder / "tables" / "tables.md").read_text(encoding="utf-8")


def test_terminal_table(finished) -> None:
    _, results = finished
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary_table(results))
    text = console.export_text()
    mae = results.parts["comparison"]["scores"]["ADMM"]["MAE"]
    (row,) = (line for line in text.splitlines() if "ADMM" in line)
    assert float(row.split("│")[2]) == pytest.approx(mae, rel=1e-3)
    assert "noisy" in text


def test_claims_follow_the_data(finished) -> None:
    _, results = finished
    parts = json.loads(json.dumps(results.parts))
    for part in ("sparsity", "snr"):
        for score, best in (("MAE", 0.0), ("F1", 1.1)):
            curves = parts[part][score]
            curves["LPG-Net"] = [best] * len(curves["LPG-Net"])
    for name, row in parts["ablation"].items():
        row["MAE"] = {"full": 1.0, "no adaptive step": 3.0}.get(name, 2.0)
    parts["denoising"]["scores"]["LPG-Net"]["patch PSNR dB"] = 99.0
    before = [claim.holds for claim in judge(parts)]
    assert all(before[i] for i in (1, 2, 6, 8))
    parts["snr"]["MAE"]["ADMM"][0] = -1.0
    parts["ablation"]["shared threshold"]["MAE"] = 4.0
    parts["denoising"]["scores"]["ISTA"]["patch PSNR dB"] = 100.0
    after = [claim.holds for claim in judge(parts)]
    assert [i for i in range(9) if before[i] != after[i]] == [1, 6, 8]


def test_unknown_budget(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="budget must be one of demo, quick, full"):
        run(tmp_path, budget="huge")


def test_every_ablation_of_the_paper_is_there() -> None:
    assert list(synthetic.ABLATIONS)[:4] == [
        "full",
        "no adaptive step",
        "no monotonicity penalty",
        "shared threshold",
    ]
