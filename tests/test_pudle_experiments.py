"""Experiments with PUDLE: samples, methods, scores, figures, report and targets."""

from __future__ import annotations

import json
import math
import mmap
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pudle_cases import TINY, photographs
from typer.testing import CliRunner

from fastunroll.cli.app import app
from fastunroll.dictionary import PUDLE
from fastunroll.experiments.pudle import recovery, run, settings, speed
from fastunroll.experiments.pudle.claims import judge
from fastunroll.experiments.pudle.document import document
from fastunroll.experiments.pudle.images import centre, crop_psnr, crops_of, with_noise
from fastunroll.experiments.pudle.local import line, local_gradients
from fastunroll.experiments.pudle.samples import AtomProblem
from fastunroll.experiments.pudle.summary import summary
from fastunroll.io import load_tensors

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "pudle"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return photographs(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("pudle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(settings._BUDGETS, "quick", TINY)
        run(folder, data=data, progress=False)
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_samples_have_the_sparsity_and_the_amplitudes():
    problem = AtomProblem.make(20, 30, 3, seed=1)
    x, z = problem.sample(400, torch.Generator().manual_seed(0))
    assert ((z != 0).sum(dim=1) == 3).all()
    sizes = z[z != 0].abs()
    assert 1 <= sizes.min() < 1.1 < 1.9 < sizes.max() <= 2
    assert abs((z > 0).sum() - (z < 0).sum()) < 150
    torch.testing.assert_close(x, z @ problem.dictionary.T)
    start = problem.start(0.1, seed=1)
    for atoms in (problem.dictionary, start):
        torch.testing.assert_close(atoms.norm(dim=0), torch.ones(30))
    assert 0.3 < float((start - problem.dictionary).norm() / 30**0.5) < 0.5


def test_gradients_of_a_deep_encoder_are_those_of_the_lasso():
    s = replace(TINY.local, layers=(1, 20, 400), limit_layers=2000)
    found = local_gradients(s, seed=0)
    assert found["codes"][-1] < 1e-3 * found["codes"][0]
    lasso = found["gradients"]["lasso"]
    assert lasso["dec"][-1] < 1e-2 * lasso["dec"][0]
    assert lasso["ae-lasso"][-1] < 1e-2 * lasso["ae-lasso"][0]
    assert lasso["ae-ls"][-1] > 10 * lasso["dec"][-1]
    true = {name: row[-1] for name, row in found["gradients"]["true"].items()}
    assert min(true, key=true.get) == "ae-ls"


def test_line_through_the_fall_before_rounding():
    layers = list(range(0, 200, 10))
    exact = [2 * math.exp(-0.3 * k) for k in layers]
    expected = pytest.approx((-0.3, math.log(2)))
    assert line(layers, exact) == expected
    assert line(layers, [max(x, 1e-13) for x in exact]) == expected


@pytest.mark.parametrize("method", recovery.METHODS)
def test_methods_come_closer_to_the_truth(finished, method):
    row = results_of(finished)["recovery"]["2"][method]
    assert row["samples"][0] == 0
    assert len(row["samples"]) == len(row["errors"])
    assert row["error"] == row["errors"][-1]
    # NOODL is made for larger problems, and leaves one as small as this.
    assert row["error"] < row["errors"][0] or method == recovery.NOODL_METHOD
    assert row["matched error"] <= row["error"] + 1e-9
    saved, _ = load_tensors(finished / "models" / f"recovery-2-{method}.safetensors")
    problem = AtomProblem.make(20, 30, 2, seed=0)
    error = (saved["dictionary"] - problem.dictionary).norm() / problem.dictionary.norm()
    assert float(error) == pytest.approx(row["error"], rel=1e-4)
    assert ((saved["true codes"] != 0).sum()) == 2


def test_lambda_decays_within_the_layers_and_over_the_training(monkeypatch):
    seen = []
    loss = PUDLE.loss

    def watched(self, *args):
        if self.training:
            seen.append(float(self.layer_decay))
        return loss(self, *args)

    monkeypatch.setattr(PUDLE, "loss", watched)
    problem = AtomProblem.make(20, 30, 2, seed=0)
    start = problem.start(0.03, 0)
    for method, last in ((recovery.PLAIN, 1.0), (recovery.DECAY, 0.995**9)):
        seen.clear()
        recovery._pudle(TINY.recovery, method, problem, start, 0, progress=False)
        assert seen[0] == 1.0
        assert seen[-1] == pytest.approx(last)
        assert len(seen) == 50


def test_psnr_by_both_definitions():
    clean = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    estimate = clean + 0.1
    found = crop_psnr(estimate, clean)
    assert found["standard"] == pytest.approx(20, abs=1e-4)
    peaks = clean.flatten(1).amax(dim=1).log10().mean()
    assert found["paper"] == pytest.approx(20 + 20 * float(peaks), abs=1e-4)
    assert crop_psnr(clean - 5, clean) == crop_psnr(torch.zeros_like(clean), clean)


def test_crops_and_noise_are_the_same_every_time():
    images = [np.random.default_rng(k).random((30, 40)).astype(np.float32) for k in range(3)]
    crops = crops_of(images, 9, 2, seed=3)
    assert crops.shape == (6, 1, 9, 9)
    assert torch.equal(crops, crops_of(images, 9, 2, seed=3))
    assert not torch.equal(crops[0], crops[1])
    corner = crops[2, 0].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(images[1], (9, 9))
    assert (windows == corner).all(axis=(2, 3)).any()
    noisy = with_noise(images, 0.1, seed=3)
    assert noisy[0].dtype == np.float32
    assert 0.09 < np.std(noisy[0] - images[0]) < 0.11
    np.testing.assert_array_equal(noisy[0], with_noise(images[:1], 0.1, seed=3)[0])
    assert centre(images[0], 20).shape == (20, 20)


def test_eager_forms_take_the_same_step(monkeypatch):
    peaks = {speed.FUSED: 1, speed.EAGER: 12 * mmap.PAGESIZE, speed.GRAM: 8 * mmap.PAGESIZE}
    sizes = iter(peaks.values())
    monkeypatch.setattr(speed, "peak_memory", lambda step: next(sizes))
    found = speed.step_costs(TINY.recovery, 2, 1, 0)
    assert found["gradient error"] < 1e-5
    seconds = found["step seconds"]
    faster = min(seconds[speed.EAGER], seconds[speed.GRAM])
    assert found["time ratio"] == faster / seconds[speed.FUSED]
    assert found["peak bytes"] == peaks
    assert found["memory ratio"] == 8
    kept = found["kept bytes"]
    assert 0 < kept[speed.FUSED] < kept[speed.GRAM] < kept[speed.EAGER]
    assert found["kept ratio"] == kept[speed.GRAM] / kept[speed.FUSED]


def test_no_memory_ratio_where_the_system_cannot_tell(monkeypatch):
    monkeypatch.setattr(speed, "peak_memory", lambda step: None)
    assert "memory ratio" not in speed.step_costs(TINY.recovery, 2, 1, 0)


def test_report_holds_every_figure_and_claim(finished):
    results, report = results_of(finished), (finished / "report.md").read_text()
    assert document(results) == report
    pictures = re.findall(r"figures/([\w-]+\.png)", report)
    assert len(set(pictures)) == 10
    for picture in pictures:
        assert (finished / "figures" / picture).stat().st_size > 5000
    for claim in judge(results):
        assert claim.text in report
    for kind, rows in results["denoising"].items():
        for value, row in rows.items():
            assert f"| {kind} | {value} | {row['paper']:.2f} |" in report
            assert row["steps"] == 3
            assert row["epochs"] == 1
    assert f"{3 / 3:.1f} of 250" in report
    assert results["cscnet"]["scores"]["images"] == 2
    assert results["cscnet"]["training"]["curve"]["step"] == [0, 2, 4, 4, 6]
    assert results["cscnet"]["training"]["training images"] == 2


def test_verdicts_follow_the_numbers(finished):
    results = results_of(finished)
    table = results["denoising"]
    table["g_ae-ls"]["0.2"]["paper"] = table["g_dec"]["0.2"]["paper"] - 1
    table["g_ae-ls"]["0.12"]["paper"] = table["g_dec"]["0.12"]["paper"] + 1
    results["trainings"]["5"]["ae-ls"]["error"] = 2.0
    results["trainings"]["5"]["dec"]["error"] = 1.0
    results["trainings"]["5"]["ae-lasso"]["error"] = 4.0
    found = summary(results)
    assert found["least gain of g_ae-ls (dB)"] == pytest.approx(-1)
    assert found["ae-ls's distance over the others'"] == 2
    verdicts = {claim.text[:10]: claim.holds for claim in judge(results)}
    assert not verdicts["Table 1: b"]
    assert not verdicts["Fig. 4c, d"]


def test_a_finished_run_computes_nothing(finished, data, monkeypatch):
    monkeypatch.setitem(settings._BUDGETS, "quick", TINY)
    for name in ("local_gradients", "train_local", "recover", "step_costs", "learn_filters"):
        monkeypatch.setattr(f"fastunroll.experiments.pudle.parts.{name}", None)
    before = results_of(finished)
    after = run(finished, data=data, progress=False)
    before.pop("facts"), after.pop("facts")
    assert after == before
    assert not list((finished / "runs").iterdir())


def check(folder: Path):
    return CliRunner().invoke(app, ["reproduce", "pudle", "--check", "--output", str(folder)])


def test_check_names_what_is_missed(finished, tmp_path):
    (tmp_path / "results.json").write_text((finished / "results.json").read_text())
    reached = results_of(finished)["recovery"]["2"]["plain"]["error"]
    target = (
        '[[target]]\nname = "plain"\npath = ["recovery", "2", "plain", "error"]\nat_most = {}\n'
    )
    (tmp_path / "targets.toml").write_text(target.format(reached * 1.1))
    assert check(tmp_path).exit_code == 0
    (tmp_path / "targets.toml").write_text(target.format(reached * 0.9))
    result = check(tmp_path)
    assert result.exit_code == 1
    assert "MISSED" in result.output


def test_committed_targets_lead_into_the_results(finished, tmp_path):
    results = results_of(finished)
    (row,) = results["recovery"].values()
    (seconds,) = results["summary"]["processor seconds"].values()
    results["recovery"] = dict.fromkeys(("10", "20", "40"), row)
    results["summary"]["processor seconds"] = {"10": seconds}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "targets.toml").write_text((RESULTS / "targets.toml").read_text())
    result = check(tmp_path)
    assert result.exit_code == 1
    assert "missing" not in result.output


def test_committed_report_says_what_the_results_say():
    results = results_of(RESULTS)
    assert document(results) == (RESULTS / "report.md").read_text()
    assert summary(results).keys() == results["summary"].keys()
