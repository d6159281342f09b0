"""Experiments on optimisation guarantees: parts, claims, document, check and resumption."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fastunroll.cli.app import app
from fastunroll.experiments.guarantees import check, claims, parts, run, settings
from fastunroll.experiments.guarantees.fourier import fourier_dictionary
from fastunroll.experiments.guarantees.networks import (
    ADMM,
    FEED_FORWARD,
    LISTA,
    NETWORKS,
    Task,
    make_network,
)
from fastunroll.experiments.guarantees.settings import FourierSettings, GuaranteeSettings

COMMITTED = Path(__file__).parent.parent / "docs" / "results" / "guarantees"
TINY = GuaranteeSettings(
    n_layers=2,
    widths=(8, 12),
    samples=(2, 4),
    n_steps=3,
    learning_rates=(0.1,),
    n_tuning=3,
    n_seeds=2,
    n_test=10,
    kernel_samples=(2, 3),
    n_kernel_seeds=2,
    hessian_widths=(8, 16),
    hessian_measurements=6,
    n_hessian_seeds=2,
    n_outputs=2,
    descent_samples=2,
    descent_steps=80,
    n_descent_seeds=2,
    fourier=FourierSettings(side=4, n_frequencies=8, n_layers=2, n_steps=2, image_side=16),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guarantees")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(settings._BUDGETS, "quick", TINY)
        run(folder, budget="quick", progress=False)
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


# A whole run


def test_a_run_leaves_document_results_and_figures(finished) -> None:
    text = (finished / "README.md").read_text()
    results = results_of(finished)
    for claim in claims.judge(results):
        verdict = "Holds." if claim.holds else "Does not hold."
        assert f"* {claim.text} **{verdict}** {claim.evidence}." in text
    for name in ("samples", "kernel", "hessian", "descent", "fourier"):
        assert f"figures/{name}.png" in text
        assert (finished / "figures" / f"{name}.png").stat().st_size > 5000
    assert check(finished) == []


def test_a_run_goes_on_where_it_stopped(finished, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    monkeypatch.setitem(settings._BUDGETS, "quick", TINY)
    (folder / "parts" / "kernels-3.json").unlink()
    computed = []
    kernels = parts.kernels
    monkeypatch.setattr(parts, "kernels", lambda s, n: computed.append(n) or kernels(s, n))
    for name in ("fit", "hessians", "descents", "tune"):
        monkeypatch.setattr(parts, name, lambda *_: pytest.fail("computed again"))
    run(folder, budget="quick", progress=False)
    assert computed == [3]
    before, after = results_of(finished), results_of(folder)
    before.pop("facts"), after.pop("facts")
    assert before == after


def test_check_finds_a_verdict_and_a_number_that_do_not_follow(finished, tmp_path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(finished, folder)
    text = (folder / "README.md").read_text()
    other = text.replace("Does not hold.", "Holds.", 1)
    if other == text:
        other = text.replace("Holds.", "Does not hold.", 1)
    (folder / "README.md").write_text(other)
    assert len(check(folder)) == 1
    (folder / "README.md").write_text(text)
    results = results_of(folder)
    results["kernels"]["2"][LISTA]["smallest"] = [1.0, 1.0]
    (folder / "results.json").write_text(json.dumps(results))
    assert check(folder)


def test_command_line(finished, tmp_path, monkeypatch) -> None:
    command = ["reproduce", "guarantees", "--output", str(finished)]
    result = CliRunner().invoke(app, [*command, "--check"])
    assert result.exit_code == 0, result.output
    monkeypatch.setitem(settings._BUDGETS, "quick", TINY)
    result = CliRunner().invoke(app, [*command, "--budget", "quick"])
    assert result.exit_code == 0, result.output
    assert "exponent" in result.output
    folder = tmp_path / "wrong"
    shutil.copytree(finished, folder)
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("exponent", "exponent of"))
    command = ["reproduce", "guarantees", "--check", "--output", str(folder)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "lacks, or contradicts" in result.output
    result = CliRunner().invoke(app, ["reproduce", "guarantees", "--budget", "demo"])
    assert result.exit_code == 1
    assert "budget must be one of quick, full" in result.output


def test_what_is_committed_agrees_with_its_document() -> None:
    assert check(COMMITTED) == []
    assert results_of(COMMITTED)["budget"] == "full"


# Parts


def test_networks_have_the_same_number_of_parameters() -> None:
    task = Task.make(64, density=0.1, seed=0)
    sizes = [
        make_network(name, task.problem.dictionary, 4, 0).network.n_parameters for name in NETWORKS
    ]
    assert sizes[0] == sizes[1]
    assert abs(sizes[2] / sizes[0] - 1) < 0.01


def test_samples_have_unit_mean_square_and_no_empty_code() -> None:
    batch = Task.make(20, density=0.1, seed=0).sample(4000, 1)
    assert bool((batch.codes != 0).any(dim=1).all())
    full = Task.make(60, density=0.1, seed=0).sample(4000, 1)
    assert float(full.measurements.square().mean()) == pytest.approx(1, abs=0.1)
    again = Task.make(20, density=0.1, seed=0).sample(4000, 1)
    assert torch.equal(batch.codes, again.codes)


def test_training_lowers_the_loss() -> None:
    task = Task.make(16, density=0.2, seed=0)
    batch = task.sample(8, 0)
    for name in NETWORKS:
        network = make_network(name, task.problem.dictionary, 3, 0)
        before = float(parts.relative_loss(network, batch).detach())
        assert parts.train(network, batch, 60, 0.1) < 0.3 * before


def test_a_descent_that_diverges_takes_a_smaller_step() -> None:
    s = replace(TINY, step_factor=2.0**40, n_descent_seeds=1)
    rate = parts.descents(TINY, FEED_FORWARD)["learning rate"][0] / TINY.step_factor
    found = parts.descents(s, FEED_FORWARD)
    assert found["learning rate"][0] < 2.0**40 * rate
    assert np.isfinite(found["loss"]).all()


def test_fourier_dictionary_is_a_part_of_a_unitary_matrix() -> None:
    whole = fourier_dictionary(4, 16, seed=0).to(torch.complex128)
    eye = torch.eye(16, dtype=torch.complex128)
    assert torch.allclose(whole @ whole.mH, eye, atol=1e-6)
    part = fourier_dictionary(4, 5, seed=0)
    assert part.shape == (5, 16)
    # The coefficient of frequency 0 is the mean, which only the constant atom has.
    assert float(part[0].abs().argmax()) == 0


# Claims


def test_hessian_fit_finds_a_power_law_and_its_error() -> None:
    rng = np.random.default_rng(0)
    widths = (64, 128, 256, 512)
    noise = rng.normal(0, 0.05, (4, 40))
    results = {
        "hessians": {
            str(w): {LISTA: (2 * w**-0.5 * np.exp(noise[i])).tolist()} for i, w in enumerate(widths)
        }
    }
    fit = claims.hessian_fit(results, LISTA)
    assert fit.exponent == pytest.approx(-0.5, abs=4 * fit.error)
    assert fit.factor == pytest.approx(2, rel=0.1)
    slope_error = 0.05 / np.log(widths).std() / 2 / np.sqrt(40)
    assert fit.error == pytest.approx(slope_error, rel=0.3)


def losses(values: dict[int, float]) -> dict:
    rows = {str(t): {LISTA: {"training": [v, v], "test": [1.0, 1.0]}} for t, v in values.items()}
    return {"fits": {"8": {"learning rates": {}, **rows}}, "settings": {"near_zero": 0.01}}


def test_threshold_and_crossing() -> None:
    results = losses({10: 1e-4, 100: 1e-3, 1000: 1e-1})
    assert claims.threshold(results, "8", LISTA) == 100
    assert claims.crossing(results, "8", LISTA) == pytest.approx(100 * 10**0.5)
    assert claims.threshold(losses({10: 1e-1, 100: 1e-3}), "8", LISTA) == 0
    assert claims.crossing(losses({10: 1e-1, 100: 1e-3}), "8", LISTA) == 10
    assert claims.crossing(losses({10: 1e-3, 100: 1e-3}), "8", LISTA) == 100


def test_late_rate_of_an_exponential() -> None:
    rate, fit = claims.late_rate((3 * np.exp(-0.02 * np.arange(500))).tolist(), every=1)
    assert rate == pytest.approx(0.02)
    assert fit == pytest.approx(1.0)
    rate, _ = claims.late_rate((3 * np.exp(-0.02 * np.arange(0, 500, 10))).tolist(), every=10)
    assert rate == pytest.approx(0.02)


def test_verdicts_follow_the_data(finished) -> None:
    results = results_of(finished)
    by_text = {claim.text: claim for claim in claims.judge(results)}
    for row in results["kernels"].values():
        for name, value in ((LISTA, 3.0), (ADMM, 2.0), (FEED_FORWARD, 1.0)):
            row[name]["smallest"] = [value] * 2
    for row in results["fits"].values():
        for count in ("2", "4"):
            for name, value in ((LISTA, 1e-3), (ADMM, 1e-3), (FEED_FORWARD, 1.0)):
                row[count][name] = {"training": [value] * 2, "test": [value] * 2}
    changed = claims.judge(results)
    assert [c.holds for c in changed if "smallest eigenvalue of the tangent" in c.text] == [True]
    assert [c.holds for c in changed if "fit more training samples" in c.text] == [True]
    assert [c.holds for c in changed if "expected error" in c.text] == [True]
    for row in results["kernels"].values():
        row[LISTA]["smallest"] = [0.5, 0.5]
    results["fits"]["12"]["4"][LISTA]["test"] = [2.0, 2.0]
    changed = claims.judge(results)
    assert [c.holds for c in changed if "smallest eigenvalue of the tangent" in c.text] == [False]
    assert [c.holds for c in changed if "expected error" in c.text] == [False]
    assert len(by_text) == len(changed)
