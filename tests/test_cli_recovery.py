"""``fastunroll train --model``, run in this process on tiny problems."""

from __future__ import annotations

import csv
import signal

import pytest
import torch
from test_cli import fails, succeeds

from fastunroll.data import SparseProblem
from fastunroll.data.benchmark import make_benchmark
from fastunroll.io import load_model
from fastunroll.nn import ALISTA, HyperLISTA
from fastunroll.nn.catalogue import catalogue

TINY = ["--n-measurements", 20, "--n-atoms", 30, "--n-layers", 3, "--budget", 12]


def number(text, name):
    return float(next(line for line in text.splitlines() if f" {name} " in line).split()[-2])


def test_trains_saves_and_scores(tmp_path):
    text = succeeds("train", "-o", tmp_path, "--model", "alista-ss", *TINY, "--variant", "snr30")
    problem = make_benchmark("snr30", n_measurements=20, n_atoms=30)
    network = load_model(tmp_path / "model.safetensors")
    assert type(network) is ALISTA
    assert network.n_layers == 3
    score = problem.evaluate(network)
    assert number(text, "NMSE (dB)") == pytest.approx(score.nmse_db, rel=1e-3)
    assert number(text, "NMSE, worst sample (dB)") == pytest.approx(score.worst_db, abs=1e-3)
    assert problem.checksum[:12] in text
    assert "36 steps" in text
    with (tmp_path / "log.csv").open(newline="") as file:
        stages = [row["stage"] for row in csv.DictReader(file)]
    assert stages[0] == "layer 1, new layer"
    assert stages[-1] == "all layers"


def test_schedule_and_loss(tmp_path):
    arguments = ["--model", "step-lista", *TINY, "--loss", "lasso", "--schedule", "end-to-end"]
    succeeds("train", "-o", tmp_path, *arguments)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["stage"] for row in rows} == {"all layers"}
    assert 0 < float(rows[-1]["validation"]) < float(rows[0]["validation"])


def test_hyperlista_is_searched(tmp_path):
    arguments = ["--n-measurements", 10, "--n-atoms", 15, "--n-layers", 2]
    text = succeeds("train", "-o", tmp_path, "--model", "hyperlista", *arguments)
    assert "search" in text
    network = load_model(tmp_path / "model.safetensors")
    problem = make_benchmark(n_measurements=10, n_atoms=15)
    untrained = HyperLISTA(problem.dictionary, 2)
    assert problem.evaluate(network).nmse_db < problem.evaluate(untrained).nmse_db
    message = fails(2, "train", "-o", tmp_path, "--model", "hyperlista", "--budget", "full")
    assert "--budget has no meaning for hyperlista" in message


def test_same_command_resumes_exactly(tmp_path, monkeypatch):
    arguments = ["--model", "tilista", *TINY]
    succeeds("train", "-o", tmp_path / "whole", *arguments)
    sample, calls = SparseProblem.sample, []

    def interrupt(problem, *rest):
        calls.append(1)
        if len(calls) == 2 + 21:  # 2 calls draw validation and test set
            signal.raise_signal(signal.SIGINT)
        return sample(problem, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(SparseProblem, "sample", interrupt)
        message = fails(130, "train", "-o", tmp_path / "cut", *arguments)
    assert "the same command goes on" in message
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    succeeds("train", "-o", tmp_path / "cut", *arguments)
    whole, cut = (load_model(tmp_path / run / "model.safetensors") for run in ("whole", "cut"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, cut.state_dict()[name])


def test_another_network_is_refused(tmp_path):
    succeeds("train", "-o", tmp_path, "--model", "alista", *TINY)
    message = fails(1, "train", "-o", tmp_path, "--model", "tilista", *TINY)
    assert "a run with model alista" in message


def test_usage_errors(tmp_path):
    run = tmp_path / "run"
    message = fails(2, "train", "-o", run, "--model", "alsita")
    assert [name for name in ("lpg-net", *catalogue) if name not in message] == []
    assert "noiseless" in fails(2, "train", "-o", run, "--model", "alista", "--variant", "snr50")
    assert "quick" in fails(2, "train", "-o", run, "--model", "alista", "--budget", "2")
    assert "lasso" in fails(2, "train", "-o", run, "--model", "alista", "--loss", "l1")
    assert "--density has no" in fails(2, "train", "-o", run, "--model", "alista", "--density", 0.2)
    assert "--task has no" in fails(2, "train", "-o", run, "--model", "alista", "--task", "patches")
    assert "--variant has no" in fails(2, "train", "-o", run, "--variant", "snr40")
    assert not run.exists()
