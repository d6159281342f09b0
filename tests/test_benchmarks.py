"""The benchmark suite at tiny sizes: candidates agree, tables, files, targets and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

from fastunroll.benchmarks import candidates, plots, suite, tables
from fastunroll.benchmarks.candidates import COMPILED, INFERENCE, OURS, OURS_2, TRAINING
from fastunroll.benchmarks.cases import Case, Outcome, measure
from fastunroll.benchmarks.problems import make_dictionary_problem, make_problem
from fastunroll.benchmarks.recursions import FORMS, numpy_loop, onnx_session
from fastunroll.benchmarks.targets import Target, check_targets, load_targets
from fastunroll.benchmarks.timing import (
    Timing,
    bytes_kept,
    interleaved,
    peak_memory,
    ratio,
    threads,
)
from fastunroll.cli.app import app

TARGETS = Path(__file__).parent.parent / "benchmarks" / "targets.toml"
NOT_COMPILED = tuple(name for name in INFERENCE if name != COMPILED)
TINY: dict[str, Any] = {"m": 12, "n": 24, "n_layers": 3, "batch": 4, "density": 0.1}


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def timing(*rounds: float) -> Timing:
    percentiles = np.percentile(rounds, (10, 50, 90, 99)).tolist()
    return Timing(list(rounds), dict(zip(("10", "50", "90", "99"), percentiles, strict=True)))


def outcome(case: Case, **seconds: float) -> Outcome:
    names = {"ours": OURS, "eager": "eager", "onnx": "ONNX Runtime"}
    timings = {names[name]: timing(value, value, value) for name, value in seconds.items()}
    return Outcome(case, case.density, {}, timings, {}, dict.fromkeys(timings, 2_000_000))


@pytest.mark.parametrize("density", [0.05, 0.3])
@pytest.mark.parametrize("tied", [True, False])
def test_problems_have_the_wanted_density(density: float, tied: bool) -> None:
    problem = make_problem(40, 80, n_layers=6, density=density, tied=tied)
    assert problem.weight.shape == ((40, 80) if tied else (6, 40, 80))
    measured = problem.density(problem.sample(200, seed=5).measurements)
    assert measured == pytest.approx(density, rel=0.15)


def test_dictionary_problems_are_densest_in_the_first_layer() -> None:
    problem = make_dictionary_problem(200, 300, n_layers=40, density=0.37)
    b = problem.sample(50, seed=5).measurements
    first = (problem.steps[0] * b @ problem.dictionary).abs() > problem.thresholds[0]
    assert float(first.float().mean()) == pytest.approx(0.37, abs=0.06)
    assert problem.density(b) < 0.2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tied", [True, False])
def test_other_tools_compute_the_recursion(form: str, tied: bool) -> None:
    problem = make_problem(12, 24, n_layers=4, density=0.2, tied=tied)
    steps, thresholds = [1.0, 0.9, 1.0, 0.8], problem.thresholds.tolist()
    weights = [problem.weight.numpy()] * 4 if tied else list(problem.weight.numpy())
    a = problem.dictionary.numpy()
    b = problem.sample(5, seed=3).measurements.numpy()
    x = np.zeros((5, 24))
    for w, step, t in zip(weights, steps, thresholds, strict=True):
        u = x - step * (x @ a.T.astype(float) - b) @ w.astype(float)
        x = np.sign(u) * np.maximum(np.abs(u) - t, 0)
    assert 0 < np.mean(x != 0) < 0.5
    for run in (
        numpy_loop(form, a, weights, steps, thresholds),
        onnx_session(form, a, weights, steps, thresholds, n_threads=1),
    ):
        assert np.allclose(run(b), x, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_inference_is_measured(tied: bool, batch: int) -> None:
    case = Case(**{**TINY, "tied": tied, "batch": batch})
    found = measure(case, (*NOT_COMPILED, OURS_2), rounds=2)
    assert set(found.timings) == {*NOT_COMPILED, OURS_2}
    for timed in found.timings.values():
        assert len(timed.rounds) == 2
        p = timed.percentiles
        assert 0 < p["10"] <= p["50"] <= p["90"] <= p["99"]
    assert not found.kept


@pytest.mark.parametrize("learned", ["all", "layers", "dictionary"])
def test_training_is_measured(learned: str) -> None:
    names = tuple(name for name in TRAINING if name != COMPILED)
    sizes = {**TINY, "n": 40, "density": 0.37 if learned == "dictionary" else 0.1}
    found = measure(Case(job="training", learned=learned, **sizes), names, rounds=2)
    assert set(found.timings) == set(found.kept) == set(names)
    assert 0 < found.kept[OURS] < found.kept["eager"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_compile_is_measured() -> None:
    found = measure(Case(**TINY), (OURS, COMPILED), rounds=2)
    assert found.notes[COMPILED] in ("eager", "eager, Gram form")
    assert found.timings[COMPILED].median > 0


def test_a_candidate_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(candidates, "Network", lambda problem: lambda b: b @ problem.weight)
    with pytest.raises(RuntimeError, match="fastunroll differs from eager PyTorch by"):
        measure(Case(**TINY), (OURS,), rounds=2)


def test_a_forced_instruction_set_has_a_process_of_its_own() -> None:
    found = measure(Case(**TINY, isa="generic"), (OURS, "eager"), rounds=2)
    assert found.case.isa == "generic"
    assert set(found.timings) == {OURS, "eager"}


def test_candidates_take_turns() -> None:
    order: list[tuple[str, int]] = []

    def call(name: str) -> Any:
        return lambda i: order.append((name, i))

    timings = interleaved({"a": call("a"), "b": call("b")}, n_inputs=2, rounds=3)
    assert order[-12:] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)] * 3
    assert all(len(found.rounds) == 3 for found in timings.values())


def test_ratio_is_that_of_the_medians() -> None:
    found = ratio(timing(2.0, 4.0, 6.0), timing(1.0, 1.0, 2.0))
    assert found.median == 4.0
    assert found.low < found.high


def test_peak_memory() -> None:
    def call(_: int) -> None:
        np.ones(5_000_000)

    size = peak_memory(call)
    assert size is None or 3.5e7 < size < 8e7


def test_bytes_kept_by_autograd() -> None:
    x, p = torch.ones(1000), torch.ones(1000, requires_grad=True)
    assert bytes_kept(lambda i: (p * x).sum(), [x, p]) == 0
    assert bytes_kept(lambda i: p.exp().exp().sum(), [p]) == 2 * 4000


def test_threads_are_restored() -> None:
    torch.set_num_threads(2)
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_the_targets_of_the_project_are_read() -> None:
    targets = load_targets(TARGETS)
    assert len(targets) == 13
    assert all(target.case.m in (64, 250, 1000) for target in targets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "target"),
        ("[[target]]\nname = 'a'", "against"),
        ("[[target]]\nname = 'a'\ncandidate = 'fastunroll'\nagainst = ['x']\nat_least = 1", "'x'"),
        (
            "[[target]]\nname = 'a'\ncandidate = 'fastunroll'\nagainst = ['eager']\nat_least = 0",
            "at_least of 'a' must be greater than 0",
        ),
        ("target = [", "is no file of targets"),
    ],
)
def test_bad_targets(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "targets.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_targets(path)


def test_the_best_of_the_rivals_counts() -> None:
    case = Case()
    target = Target("job", case, OURS, ("eager", "ONNX Runtime"), at_least=3.0)
    (reached,) = check_targets([target], {case: outcome(case, ours=1.0, eager=4.0, onnx=2.9)})
    assert reached.best == "ONNX Runtime"
    assert reached.ratio == pytest.approx(2.9)
    assert not reached.met
    assert "MISSED" in reached.line
    (reached,) = check_targets([target], {case: outcome(case, ours=1.0, eager=4.0, onnx=3.0)})
    assert reached.met


def test_the_suite_covers_the_sizes_and_densities() -> None:
    jobs = suite.standard_jobs()
    assert {(case.m, case.n) for case in jobs} == set(suite.SIZES)
    assert {case.density for case in jobs} == set(suite.DENSITIES)
    assert {case.batch for case in jobs} == set(suite.BATCHES)
    assert {case.tied for case in jobs} == {True, False}


def a_report() -> suite.Report:
    cases = [
        *(Case(batch=b, density=d) for b in (1, 1024) for d in suite.DENSITIES),
        Case(batch=1, m=64, n=128, density=0.1),
        Case("training", 1024, density=0.1),
    ]
    alone = outcome(Case(isa="avx2"), ours=1e-3)
    outcomes = [
        outcome(case, ours=1e-3, eager=2e-3 if case.density < 0.5 else 5e-4, onnx=4e-3)
        for case in cases
    ]
    outcomes += [alone, outcome(Case(batch=1, density=0.15), onnx=1e-3)]  # of targets
    target = Target("everything", cases[0], OURS, ("eager",), 3.0)
    results = check_targets([target], {o.case: o for o in outcomes})
    facts = {"cpu": "a processor", "isa": "generic", "versions": {"torch": "2.0"}}
    return suite.Report(facts, 20, False, outcomes, results, [], ["SPAMS is not installed"])


def test_tables_show_ratios_and_losses() -> None:
    parts = tables.sections(a_report())
    row = next(line for line in parts["inference"].splitlines() if "B=1, m=64" in line)
    assert "2.00x" in row
    assert "4.00x" in row
    assert "1 ms" in row
    assert "2.0 / 2.0" in row
    assert "forced avx2 | 0.15 | 1 ms |  |  |  |  |  |  |  | 2.0 |" in parts["inference"]
    assert "density 0.6: eager takes 0.50 of our time." in parts["losses"]
    assert "Slower than 0.9 of eager PyTorch's speed: inference B=1" in parts["losses"]
    assert "| everything | 3x eager | 2.00x | **missed** |" in parts["targets"]


def test_documents_are_refreshed_between_markers(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n")
    tables.refresh(path, {"x": "new"})
    assert path.read_text() == "a\n<!-- bench:x -->\nnew\n<!-- /bench:x -->\nb\n"
    tables.refresh(path, {"x": ""})
    assert "new" in path.read_text()
    with pytest.raises(ValueError, match="asks for 'x'"):
        tables.refresh(path, {"y": "new"})
    path.write_text("nothing")
    with pytest.raises(ValueError, match="has no marker"):
        tables.refresh(path, {"x": "new"})


def test_the_documents_of_the_project_have_markers(tmp_path: Path) -> None:
    parts = tables.sections(a_report())
    for name in ("README.md", "docs/performance.md"):
        copy = tmp_path / Path(name).name
        copy.write_text((TARGETS.parent.parent / name).read_text())
        tables.refresh(copy, parts)
        assert "a processor" in copy.read_text()


def test_figures_are_drawn(tmp_path: Path) -> None:
    paths = plots.draw(a_report(), tmp_path)
    assert {path.name for path in paths} == {"density.png", "size.png", "batch.png", "latency.png"}
    assert all(path.stat().st_size > 5000 for path in paths)


def test_legends_fit_into_their_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = dict.fromkeys(INFERENCE, timing(1e-3, 1e-3, 1e-3))
    cases = [
        Case(job, batch, density=0.1) for job in ("inference", "training") for batch in (1, 64)
    ]
    outcomes = [Outcome(case, 0.1, {}, seconds, {}, {}) for case in cases]
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    plots.draw(replace(a_report(), outcomes=outcomes), tmp_path)
    legends = [(figure, legend) for figure in figures for legend in figure.legends]
    assert len(legends) == 3
    for figure, legend in legends:
        figure.draw_without_rendering()
        assert figure.bbox.x0 <= legend.get_window_extent().x0
        assert legend.get_window_extent().x1 <= figure.bbox.x1


def write_targets(path: Path, at_least: float) -> Path:
    path.write_text(
        f"""
[[target]]
name = "single samples"
case = {{ batch = 1 }}
candidate = "fastunroll"
against = ["eager"]
at_least = {at_least}
"""
    )
    return path


@pytest.mark.parametrize(("at_least", "code"), [(1e-3, 0), (1e6, 1)])
def test_the_check_fails_where_a_target_is_missed(
    tmp_path: Path, at_least: float, code: int
) -> None:
    targets = write_targets(tmp_path / "targets.toml", at_least)
    options = ["--targets", str(targets), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["bench", "--quick", "--check", *options])
    assert done.exit_code == code, done.output
    assert ("MISSED" if code else "reached") in done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["targets"][0]["met"] is (code == 0)
    assert report["quick"] is True
    assert report["machine"]["versions"]["torch"]


def test_the_check_needs_targets() -> None:
    done = CliRunner().invoke(app, ["bench", "--check"])
    assert done.exit_code == 1
    assert "error: --check needs --targets" in done.output


def test_a_whole_run_writes_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {Case(batch=1, density=0.1): NOT_COMPILED, Case(density=0.1): NOT_COMPILED}
    monkeypatch.setattr(suite, "standard_jobs", lambda: jobs)
    page = tmp_path / "page.md"
    page.write_text("<!-- bench:recovery -->\n<!-- /bench:recovery -->\n")
    options = ["--output", str(tmp_path / "out"), "--update", str(page)]
    done = CliRunner().invoke(app, ["bench", "--quick", *options])
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.json", "report.md", "latency.png", "size.png"} <= names
    assert "SPAMS OMP" in page.read_text()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["recovery"][0]["method"] == "fastunroll.runtime"
