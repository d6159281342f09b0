"""The GPU benchmark without a GPU: counts, targets, tables and the precision of the modes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from fastunroll.benchmarks import precision
from fastunroll.benchmarks.gpu import suite, tables, targets
from fastunroll.benchmarks.gpu.accuracy import Accuracy, measure_accuracy
from fastunroll.benchmarks.gpu.candidates import (
    AUTOTUNED,
    COMPILED,
    EAGER,
    EAGER_GRAM,
    GRAPH,
    OURS,
    OURS_GRAPH,
)
from fastunroll.benchmarks.gpu.cases import Outcome, candidates_of, standard_jobs
from fastunroll.benchmarks.gpu.roofline import Ceilings, Job
from fastunroll.benchmarks.gpu.timing import Clock

TARGETS = Path(__file__).parent.parent / "benchmarks/gpu_targets.toml"
CPU = torch.device("cpu")
NOT_ON_A_CPU = (GRAPH, OURS_GRAPH, COMPILED, AUTOTUNED)
SLOW = Ceilings(copy=1e3, float32=1e6, tf32=6e6, bf16=12e6)


# --- Counts


def test_operations_and_bytes_of_a_small_job() -> None:
    job = Job("forward", batch=2, m=3, n=5, n_layers=4)
    # 2 samples x 15 multiply-adds; x_0 = 0 spares one of the four products with A^T.
    assert job.operations == (2 * 30 * 3, 2 * 30 * 4)
    assert job.least_bytes == 4 * (2 * 3 + 2 * 5 + 2 * 15)
    training = Job("training", 2, 3, 5, 4)
    assert training.operations == (3 * 180, 3 * 240)
    assert training.least_bytes == 4 * (2 * 3 + 2 * 5 + 4 * 15)
    assert Job("shrink", 2, 0, 5, 0).least_bytes == 5 * 4 * 10


def test_the_standard_network_takes_131_gigaflop() -> None:
    """x_0 = 0 spares a 32nd of them."""
    operations = Job("forward", 16384).operations
    assert sum(operations) == pytest.approx(131e9 * 31 / 32, rel=1e-2)


def test_roofline() -> None:
    job = Job("forward", batch=2, m=3, n=5, n_layers=4)  # 184 bytes, 420 operations
    assert SLOW.seconds(job, "float32") == 0.184  # by bytes
    fast = Ceilings(copy=1e9, float32=1e6, tf32=6e6, bf16=12e6)
    assert fast.seconds(job, "float32") == 420 / 2e6  # three TF32 products beat float32 units
    assert fast.seconds(job, "tf32") == 420 / 6e6
    assert fast.seconds(job, "mixed") == (3 * 180 + 240) / 12e6


# --- The run


@pytest.fixture(scope="module")
def report() -> suite.Report:
    jobs = [
        (Job("shrink", 16, 0, 64, 0), "float32"),
        (Job("forward", 4, 10, 16, 3), "float32"),
        (Job("training", 4, 10, 16, 3), "tf32"),
        (Job("training", 4, 10, 16, 3), "mixed"),
    ]
    return suite.run(CPU, jobs, rounds=1, product_size=16, without=NOT_ON_A_CPU)


def test_every_candidate_does_the_same(report: suite.Report) -> None:
    networks = [OURS, EAGER, EAGER_GRAM]
    assert [list(o.seconds) for o in report.outcomes] == [[OURS, EAGER], networks, networks, [OURS]]
    for outcome in report.outcomes:
        assert not outcome.left_out
        assert max(outcome.errors.values()) < 1e-5
        assert min(outcome.seconds.values()) > 0


def test_tables_show_every_figure(report: suite.Report) -> None:
    text = tables.document(report, [])
    assert "forward B=4, (10, 16), K=3 | float32" in text
    assert text.count("training B=4") == 2 + 4
    assert "fastunroll, mixed: least NMSE" in text
    assert "Left out" not in text


def test_what_there_is_no_time_for_is_told() -> None:
    report = suite.run(CPU, standard_jobs()[:2], seconds=0, rounds=1, product_size=16)
    assert report.outcomes == []
    assert "forward B=16384, (250, 500), K=16, float32: no time" in tables.document(report, [])


def test_a_candidate_that_fails_is_told() -> None:
    report = suite.run(
        CPU, [(Job("forward", 4, 10, 16, 3), "float32")], rounds=1, product_size=16,
        without=(COMPILED, AUTOTUNED, GRAPH),
    )  # fmt: skip
    (outcome,) = report.outcomes
    assert list(outcome.left_out) == [OURS_GRAPH]  # there is no GPU to capture a graph on
    assert OURS_GRAPH in tables.document(report, []).split("Left out")[1]


def test_the_best_form_is_what_rivals_run() -> None:
    assert {EAGER, EAGER_GRAM, COMPILED} <= set(candidates_of(Job(), "tf32"))
    names = candidates_of(Job(), "float32")
    assert names.index(EAGER_GRAM) < names.index(GRAPH)  # chosen before they are made


def test_clock_takes_turns_over_the_inputs() -> None:
    seen: list[int] = []
    assert Clock(CPU).seconds(lambda i: seen.append(i), 3, 5) >= 0
    assert seen == [0, 1, 2, 0, 1]


# --- Targets


def test_every_target_is_measured() -> None:
    jobs = standard_jobs()
    for target in targets.load_targets(TARGETS):
        if target.quantity == "accuracy":
            continue
        assert (target.job, target.precision) in jobs, target.name
        assert target.candidate in candidates_of(target.job, target.precision)
        if target.against:
            assert (target.job, "float32") in jobs
            assert target.against in candidates_of(target.job, "float32")


def made_report() -> suite.Report:
    job = Job("forward", 2, 3, 5, 4)
    single = Outcome(job, "float32", 1.0, {OURS: 2.0, EAGER: 8.0}, {OURS: 10, EAGER: 50})
    mixed = Outcome(job, "mixed", 1.0, {OURS: 1.0}, {OURS: 10})
    accuracy = [Accuracy(OURS, "mixed", -100.0, -87.0)]
    return suite.Report({}, SLOW, [single, mixed], accuracy, [])


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"against": EAGER}, 4.0),
        ({"against": EAGER, "precision": "mixed"}, 8.0),
        ({"against": EAGER, "quantity": "memory"}, 5.0),
        ({"quantity": "rate"}, 0.5),
        ({"quantity": "bandwidth"}, 0.092),
        ({"quantity": "accuracy", "precision": "mixed"}, 87.0),
        ({"against": GRAPH}, None),
        ({"against": EAGER, "precision": "tf32"}, None),
    ],
)
def test_reached(fields: dict[str, str], value: float | None) -> None:
    target = targets.Target("t", 4.0, Job("forward", 2, 3, 5, 4), **fields)
    (reached,) = targets.check_targets([target], made_report())
    assert reached.value == (None if value is None else pytest.approx(value))
    verdict = "not measured" if value is None else "reached" if value >= 4 else "MISSED"
    assert reached.line.endswith(verdict)
    assert asdict(reached)["target"]["job"]["batch"] == 2


@pytest.mark.parametrize(
    "text",
    ["[[target]]\nname = 'x'", "[[target]]\nname='x'\nat_least=1\nagainst='us'", "x = 1", "["],
)
def test_a_file_that_is_none_of_targets_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "targets.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="no file of targets"):
        targets.load_targets(path)


# --- Precision


def test_rounding_to_tf32() -> None:
    step = 2.0**-10
    x = torch.tensor([1.0, 1 + step, 1 + step / 2, 1 + 0.49 * step, -1 - step / 2, 0.0, 3e-5])
    expected = [1.0, 1 + step, 1 + step, 1.0, -1 - step, 0.0]
    rounded = precision.to_tf32(x)
    assert rounded[:6].tolist() == expected
    assert abs(float(rounded[6] / x[6]) - 1) <= step / 2


def test_three_products_of_halves_are_nearly_one_of_wholes() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, 30, generator=g, dtype=torch.float64) for _ in range(2))
    exact, single = x @ y, (x.float(), y.float())

    def error(product: precision.Product) -> float:
        return float((product(*single).double() - exact).norm() / exact.norm())

    assert error(precision.split(precision.to_tf32)) < 2 * error(torch.matmul)
    assert error(precision.split(precision.to_bf16)) < 3e-5
    assert 1e-4 < error(precision.rounded(precision.to_tf32)) < 1e-3
    assert 1e-3 < error(precision.rounded(precision.to_bf16)) < 1e-2


def test_the_mixed_mode_is_float32_down_to_80_db_and_tf32_is_not() -> None:
    """What the design of the mixed mode stands on."""
    problem = precision.make_recovery(n_layers=150, batch=8)
    single = problem.to(torch.float32)
    exact = precision.errors(single, torch.matmul, torch.matmul)
    assert exact[-1] < -82
    found = {
        name: precision.same_until(precision.errors(single, *precision.MODES[name]), exact)
        for name in ("3 x TF32", "3 x BF16, then BF16 (mixed)", "TF32")
    }
    assert found["3 x TF32"] == exact[-1]
    assert found["3 x BF16, then BF16 (mixed)"] < -80
    assert -65 < found["TF32"] < -30


def test_accuracy_on_a_device() -> None:
    found = measure_accuracy(Clock(CPU), precision.make_recovery(40, 60, n_layers=30, batch=4))
    assert {(a.candidate, a.precision) for a in found} == {
        *((OURS, p) for p in ("float32", "tf32", "mixed")),
        *((EAGER, p) for p in ("float32", "tf32")),
    }
    assert all(a.least == pytest.approx(found[0].least, abs=0.1) for a in found)


def test_same_until() -> None:
    exact = [-1.0, -2.0, -3.0, -4.0]
    assert precision.same_until(exact, exact) == -4.0
    assert precision.same_until([-1.0, -2.05, -2.5, -4.0], exact) == -2.0
    assert precision.same_until([0.0, -2.0, -3.0, -4.0], exact) == 0.0
