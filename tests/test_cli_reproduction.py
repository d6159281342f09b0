"""``fastunroll demo`` and ``reproduce``, without the experiments, which have tests of their own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli import fails, run, succeeds

from fastunroll.cli.reproduction import Budget
from fastunroll.experiments import guarantees, lista, lpg_net, pudle
from fastunroll.experiments.claims import Claim
from fastunroll.experiments.settings import BUDGETS

EXPERIMENTS = {"lpg-net": lpg_net, "guarantees": guarantees, "lista": lista, "pudle": pudle}


@pytest.fixture
def calls(monkeypatch):
    """Replace the experiments with LPG-Net."""
    calls = []

    def experiment(output, **options):
        calls.append((output, options))
        claims = [Claim("All is well.", True, ""), Claim("All is best.", False, "")]
        return SimpleNamespace(report=output / "report.html", claims=claims)

    monkeypatch.setattr(lpg_net, "run", experiment)
    monkeypatch.setattr(lpg_net, "summary_table", lambda results: "the table")
    return calls


def test_demo(calls):
    text = succeeds("demo")
    output = Path("fastunroll-demo")
    assert calls == [(output, {"budget": "demo", "seed": 0, "data": None})]
    assert text.splitlines() == [
        "the table",
        "holds: All is well.",
        "does not hold: All is best.",
        f"report: {output / 'report.html'}",
    ]


def test_reproduce(tmp_path, calls):
    options = ["--budget", "quick", "--seed", 3, "--data", tmp_path, "-o", tmp_path / "out"]
    succeeds("reproduce", "lpg-net", *options)
    expected = {"budget": "quick", "seed": 3, "data": tmp_path}
    assert calls == [(tmp_path / "out", expected)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_share_no_folder(monkeypatch, name):
    outputs = []

    def experiment(output, **_):
        outputs.append(output)
        raise KeyboardInterrupt

    monkeypatch.setattr(EXPERIMENTS[name], "run", experiment)
    folder = Path("fastunroll-reproduction") / name
    assert f"{folder} keeps" in fails(130, "reproduce", name)
    assert outputs == [folder]


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("lpg-net", ["--check"], "lpg-net"),
        ("lpg-net", ["--models", "lista"], "lpg-net"),
        ("guarantees", ["--data", "."], "guarantees"),
        ("guarantees", ["--models", "lista"], "guarantees"),
        ("lista", ["--data", "."], "lista"),
        ("pudle", ["--models", "lista"], "pudle"),
        ("pudle", ["--data", ".", "--check"], "--check"),
        ("lista", ["--models", "lista", "--check"], "--check"),
        ("lista", ["--seed", 0, "--check"], "--check"),
        ("guarantees", ["--budget", "full", "--check"], "--check"),
    ],
)
def test_options_without_a_meaning(monkeypatch, name, options, what):
    monkeypatch.setattr(EXPERIMENTS[name], "run", None)
    assert f"{options[0]} has no meaning for {what}" in fails(2, "reproduce", name, *options)


def test_offers_every_budget():
    assert {budget.value for budget in Budget} == set(BUDGETS)


def test_usage_errors(calls):
    fails(2, "reproduce", "lpg-nat")
    fails(2, "reproduce", "lpg-net", "--budget", "huge")
    assert calls == []


def test_interrupted(tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(lpg_net, "run", interrupt)
    message = fails(130, "demo", "-o", tmp_path)
    assert message.startswith("interrupted: ")
    assert "finished parts" in message


def test_check_takes_the_committed_files_where_there_are_no_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, committed = Path("fastunroll-reproduction"), Path("docs/results/lista")
    check = ("reproduce", "lista", "--check")
    assert f"no results.json in {committed}: " in fails(1, *check)
    for folder, value in ((own, 1), (committed, 2)):
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"error": value}))
    message = fails(1, *check, "-o", own)
    assert f"no targets.toml in {own}, nor in {committed}: " in message
    target = '[[target]]\nname = "error"\npath = ["error"]\nat_most = {}\n'
    (committed / "targets.toml").write_text(target.format(1.5))
    assert "1 of 1 targets reached" in succeeds(*check, "-o", own)
    missed = run(*check)
    assert missed.exit_code == 1
    assert "0 of 1 targets reached" in missed.stdout
    (own / "targets.toml").write_text(target.format(0.5))
    assert "0 of 1 targets reached" in run(*check, "-o", own).stdout
