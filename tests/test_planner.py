"""The choice of the form: costs, choices, their limits, the text, and who asks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import dictionary

import fastunroll
from fastunroll import explain, functional, planner, prepare
from fastunroll.ops.arguments import UnrolledArguments

CHOICES = {
    # Large batches and tied weights: G is worth forming.
    "inference": ({"batch": 1024}, "gram"),
    # One sample: forming G costs more than all layers.
    "one sample": ({"batch": 1}, "factored"),
    # K matrices to form for few samples each.
    "weights of every layer": ({"batch": 16, "n_weights": 16}, "factored"),
    # Many atoms for each measurement: n^2 is much more than m n.
    "wide": ({"batch": 1024, "shape": (10, 500)}, "factored"),
    "learned, large batch": ({"batch": 4096, "learns_matrices": True}, "gram"),
    "learned": ({"batch": 64, "learns_matrices": True}, "mixed"),
    "learned, one sample": ({"batch": 1, "learns_matrices": True}, "factored"),
    "learned, sparse": ({"batch": 512, "learns_matrices": True, "density": 0.03}, "mixed"),
}


def choose(changes: dict[str, Any]) -> planner.Plan:
    return planner.plan(**{"shape": (250, 500), "n_layers": 16, **changes})


@pytest.mark.parametrize("case", CHOICES)
def test_choice(case: str) -> None:
    changes, form = CHOICES[case]
    chosen = choose(changes)
    assert chosen.form == form
    assert chosen.costs[form] == min(chosen.costs.values())
    learns = changes.get("learns_matrices", False)
    assert set(chosen.costs) == {"gram", "factored"} | ({"mixed"} if learns else set())


def test_costs_are_counts() -> None:
    """By hand, for B = 3, m = 5, n = 8, K = 2 and density 1/2."""
    plan = planner.plan(3, (5, 8), 2, n_weights=2, learns_matrices=True, density=0.5)
    sparse, dense = 3 * 2 * 0.5, 3 * 2 / planner.DENSE_RATE
    linear = 3 * 2 * 40 / planner.DENSE_RATE
    gram = sparse * 64 + linear + 2 * 5 * 64 / planner.DENSE_RATE
    backward = sparse * 5 * 40
    assert plan.costs["mixed"] == gram + backward
    assert plan.costs["factored"] == sparse * 40 + dense * 40 + backward
    formed = 2 * 5 * 64 / planner.DENSE_RATE
    assert plan.costs["gram"] == gram + 2 * sparse * 64 + 2 * formed + linear


def test_prepared_dictionaries() -> None:
    assert planner.plan_prepared((250, 500)).form == "gram"
    assert planner.plan_prepared((10, 500)).form == "factored"
    # With a W for every layer, c = b W costs as much as the dense product of the factored form.
    assert planner.plan_prepared((250, 500), 16).form == "factored"
    n_weights = planner.MAX_PREPARED_GRAM_ELEMENTS // 250**2
    assert planner.plan_prepared((500, 250), n_weights).form == "gram"
    assert planner.plan_prepared((500, 250), n_weights + 1).form == "factored"


def test_text() -> None:
    lines = explain(64, (250, 500), 16, learns_matrices=True).splitlines()
    assert lines[0] == (
        "(m, n) = (250, 500), 16 layers, 1 W, batch 64, density 0.15, training of A or W: mixed"
    )
    forms = [line.split()[0] for line in lines[1:4]]
    assert sorted(forms) == ["factored", "gram", "mixed"]
    assert forms[0] == "mixed"
    costs = [float(line.split()[1]) for line in lines[1:4]]
    assert costs == sorted(costs)
    plan = planner.plan(64, (250, 500), 16, learns_matrices=True)
    assert costs[0] == pytest.approx(plan.costs["mixed"] / 64 / 1e6, abs=1e-3)
    assert lines[1].endswith("M multiply-adds a sample")
    assert lines[4:] == ["prepared once with prepare(): gram"]
    given = explain(1, (250, 500), 16, n_weights=16)
    assert "16 W, batch 1, density 0.15, A and W given: factored" in given
    assert "mixed" not in given


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"n_layers": 0}, ValueError, "n_layers must be at least 1"),
        ({"n_weights": 0}, ValueError, "n_weights must be at least 1"),
        ({"shape": (250,)}, ValueError, r"shape must be \(n_measurements, n_atoms\)"),
        ({"shape": (250, 0)}, ValueError, "shape must be at least 1"),
        ({"density": 1.5}, ValueError, "density must be at most 1"),
        ({"density": -0.1}, ValueError, "density must be at least 0"),
        ({"batch": 1.5}, TypeError, "batch must be an int, got float"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explain(**{"batch": 1, "shape": (250, 500), "n_layers": 16, **changes})


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The form of every call of the operator from here on."""
    seen: list[str] = []
    run = functional.autograd.unrolled

    def unrolled(a: UnrolledArguments) -> Any:
        mixed = torch.is_grad_enabled() and a.linear is None
        seen.append("mixed" if a.gram_form and mixed else "gram" if a.gram_form else "factored")
        return run(a)

    monkeypatch.setattr(functional.autograd, "unrolled", unrolled)
    return seen


@pytest.mark.parametrize("case", ["one sample", "inference", "learned", "learned, one sample"])
def test_calls_take_the_form_that_is_planned(case: str, forms: list[str]) -> None:
    changes, form = CHOICES[case]
    a = dictionary(250, 500, torch.float32).requires_grad_("learned" in case)
    b = torch.randn(changes["batch"], 250, generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled("learned" in case):
        fastunroll.unrolled_prox_gradient(b, a, step=0.1, threshold=5.0, n_layers=16)
    assert forms == [form]


@pytest.mark.parametrize("form", ["gram", "factored", "mixed"])
def test_a_forced_form_is_taken(form: str, forms: list[str]) -> None:
    a = dictionary(12, 20).requires_grad_()
    b = torch.ones(3, 12, dtype=torch.float64)
    fastunroll.unrolled_prox_gradient(b, a, step=0.1, threshold=0.1, n_layers=2, form=form)
    assert forms == [form]


@pytest.mark.parametrize("form", ["gram", "factored"])
@pytest.mark.parametrize("shape", [(12, 20), (4, 60)])
def test_a_prepared_dictionary_keeps_its_form(form: str, shape: tuple[int, int]) -> None:
    a = dictionary(*shape)
    assert prepare(a, form=form).form == form
    assert prepare(a).form == planner.plan_prepared(shape).form
