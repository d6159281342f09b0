"""Experiments with the LISTA family: parts, resumption, tables, figures and targets."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastunroll.cli.app import app
from fastunroll.data.benchmark import VARIANTS
from fastunroll.experiments.lista import baselines, learned, plots, run, settings, training
from fastunroll.experiments.lista.document import document
from fastunroll.experiments.lista.names import PROBLEMS, PUBLISHED, TITLES
from fastunroll.experiments.lista.settings import (
    ListaSettings,
    PanelSettings,
    RobustSettings,
    Training,
)
from fastunroll.experiments.lista.tables import summary
from fastunroll.experiments.lista.training import all_codes, model_path, score, train_part
from fastunroll.experiments.report import markdown
from fastunroll.io import load_model
from fastunroll.metrics import nmse_db
from fastunroll.nn import LISTA
from fastunroll.nn.catalogue import catalogue, create
from fastunroll.training import run as training_run

TARGETS = Path(__file__).parent.parent / "docs" / "results" / "lista" / "targets.toml"
TINY = ListaSettings(
    trainings=(
        Training("hyperlista", ("noiseless",), 8),
        Training("alista-ss", ("noiseless", "snr40", "kappa5"), 3),
        Training("alista", ("noiseless",), 3),
        Training("lista", ("noiseless",), 3),
        Training("lista-cp", ("noiseless",), 3),
        Training("step-lista", ("noiseless",), 3),
    ),
    panels=PanelSettings((0.1, 0.2), (0.5, 1.0), (20.0,), (0.0, 0.01), 20, 10, 6),
    robust=RobustSettings(0.02, (0.0, 0.02), 3, 3, 1, 10),
    n_layers=3,
    n_measurements=15,
    n_atoms=30,
    n_test=40,
    quick_steps=3,
    timing_rounds=1,
)
ALISTA = Training("alista-ss", ("snr40",), 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lista")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(settings._BUDGETS, "quick", TINY)
        run(folder, budget="quick", progress=False)
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def train_tiny(folder: Path) -> dict:
    return train_part(folder, TINY, ALISTA, "snr40", progress=False)


def test_a_network_is_trained_once_and_scored_on_the_test_set(tmp_path, monkeypatch):
    found = train_tiny(tmp_path)
    network, problem = load_model(model_path(tmp_path, "alista-ss", "snr40")), TINY.problem("snr40")
    with torch.no_grad():
        codes = network.unroll(problem.test.measurements, iterates=True).iterates
    expected = [nmse_db(x, problem.test.codes) for x in codes]
    np.testing.assert_allclose(found["layers"], expected, rtol=1e-5, atol=1e-6)
    assert found["NMSE"] == pytest.approx(expected[-1])
    assert found["worst"] >= found["NMSE"] >= -100
    assert found["steps"] == 9
    assert found["parameters"] == 6
    assert not list((tmp_path / "runs").glob("*"))
    monkeypatch.setattr(training, "_fit", None)
    assert train_tiny(tmp_path) == found


def test_chunks_do_not_change_scores(monkeypatch):
    problem = TINY.problem("noiseless")
    codes = all_codes(create("alista", problem.training, 3))
    whole = score(codes, problem)
    monkeypatch.setattr(training, "_CHUNK", 7)
    np.testing.assert_allclose(score(codes, problem)["layers"], whole["layers"], rtol=1e-6)


def test_an_interrupted_training_goes_on(tmp_path, monkeypatch):
    whole = train_tiny(tmp_path / "whole")
    steps, step = [], training_run.Run._step

    def interrupted(self, *args):
        steps.append(1)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args)

    monkeypatch.setattr(training_run.Run, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "parts")
    assert not model_path(tmp_path / "parts", "alista-ss", "snr40").exists()
    found = train_tiny(tmp_path / "parts")
    assert len(steps) == 9
    assert found["layers"] == whole["layers"]


def test_a_part_with_other_settings_is_trained_again(tmp_path):
    train_tiny(tmp_path)
    found = train_part(tmp_path, TINY, replace(ALISTA, steps=4), "snr40", progress=False)
    assert found["steps"] == 12


def test_least_squares_on_the_support_is_exact_without_noise():
    problem = TINY.problem("noiseless")
    found = baselines.baselines(problem, 3)
    assert found["least squares on the true support"]["NMSE"] < -100
    assert found["FISTA"]["layers"][0] == 0
    assert found["ISTA"]["layers"][1] == pytest.approx(found["FISTA"]["layers"][1])
    assert found["FISTA"]["NMSE"] < found["ISTA"]["NMSE"] < 0


def test_untrained_lista_is_coupled():
    network = LISTA(TINY.problem("noiseless").dictionary, 2)
    found = learned.coupling(network)
    assert max(found["relative"]) < 1e-6
    with torch.no_grad():
        network.grams[1].add_(0.5 * torch.eye(30))
    assert learned.coupling(network)["spectral"] == pytest.approx([0, 0.5], abs=1e-5)


def test_report_holds_every_network_and_study(finished):
    report, results = (finished / "report.md").read_text(), results_of(finished)
    for name in ("ALISTA, SS", "LISTA-CP", "HyperLISTA", "Step-LISTA", "Robust ALISTA", "FISTA"):
        assert f"| {name} |" in report or f" {name} |" in report
    nmse = results["networks"]["alista-ss-noiseless"]["NMSE"]
    (row,) = [line for line in report.splitlines() if "-70 to -78.5 (figures)" in line]
    assert row.startswith(f"| ALISTA, SS | {nmse:.2f} |")
    for picture in re.findall(r"figures/(\w+\.png)", report):
        assert (finished / "figures" / picture).stat().st_size > 5000
    assert len(list((finished / "figures").glob("*.png"))) == 7


def test_a_finished_run_computes_nothing(finished, monkeypatch):
    monkeypatch.setitem(settings._BUDGETS, "quick", TINY)
    monkeypatch.setattr(training, "_fit", None)
    monkeypatch.setattr("fastunroll.experiments.lista.robust.Trainer", None)
    before = results_of(finished)
    run(finished, budget="quick", progress=False)
    assert results_of(finished)["networks"] == before["networks"]


def test_labels_keep_their_distance_and_their_order():
    places = plots._apart([0.0, -1.0, -1.1, -1.2, -9.0], 1.0)
    assert places == sorted(places, reverse=True)
    assert min(-np.diff(places)) >= 1 - 1e-12
    assert places[0] == pytest.approx(np.mean([0, -1 + 1, -1.1 + 2, -1.2 + 3]))
    assert places[-1] == -9.0


def test_every_budget_names_known_networks_and_problems():
    for chosen in settings._BUDGETS.values():
        for row in chosen.trainings:
            assert row.model in catalogue
            assert row.model in TITLES
            assert set(row.variants) <= VARIANTS.keys() & PROBLEMS.keys()
        names = [(t.model, v) for t in chosen.trainings for v in t.variants]
        assert len(set(names)) == len(names)
    assert PUBLISHED.keys() <= PROBLEMS.keys()
    assert plots._FAMILIES.keys() >= TITLES.keys()


def check(folder: Path, *options: str):
    options = ("reproduce", "lista", "--check", "--output", str(folder), *options)
    return CliRunner().invoke(app, list(options))


def test_check_compares_results_with_targets(finished, tmp_path):
    reached = results_of(finished)["networks"]["alista-ss-noiseless"]["NMSE"]
    table = '[[target]]\nname = "ALISTA"\npath = ["networks", "{}", "NMSE"]\nat_most = {}\n'
    (tmp_path / "results.json").write_text((finished / "results.json").read_text())
    targets = tmp_path / "targets.toml"
    targets.write_text(table.format("alista-ss-noiseless", reached + 0.1))
    result = check(tmp_path)
    assert result.exit_code == 0
    assert "1 of 1 targets reached" in result.output
    assert f"{reached:.2f}" in result.output
    for name, bound in (("alista-ss-noiseless", reached - 0.1), ("glista-noiseless", 0)):
        targets.write_text(table.format(name, bound))
        result = check(tmp_path)
        assert result.exit_code == 1
        assert "MISSED" in result.output
    targets.write_text('[[target]]\nname = "x"\npath = ["networks"]\n')
    assert "no file of targets" in check(tmp_path).output
    assert "no results.json in" in check(tmp_path / "elsewhere").output


def test_committed_targets_lead_into_the_results(finished, tmp_path):
    (tmp_path / "targets.toml").write_text(TARGETS.read_text())
    (tmp_path / "results.json").write_text((finished / "results.json").read_text())
    result = check(tmp_path)
    assert result.exit_code == 1
    lines = [line for line in result.output.splitlines() if "ALISTA with support" in line]
    assert lines
    assert not any("missing" in line for line in lines if "SNR 20" not in line and "Ti" not in line)


def test_models_option_names_what_is_known(tmp_path):
    result = CliRunner().invoke(app, ["reproduce", "lista", "--models", "x", "-o", str(tmp_path)])
    assert result.exit_code == 1
    assert "unknown network 'x'; known: lista, " in result.output


def test_committed_pages_say_what_the_results_say():
    results = results_of(TARGETS.parent)
    report = (TARGETS.parent / "report.md").read_text()
    assert document(results) == report
    page = (TARGETS.parent.parent.parent / "models.md").read_text().splitlines()
    missing = [row for row in markdown(summary(results)).splitlines()[2:] if row not in page]
    assert not missing
