"""The global search for a few numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fastunroll.data import make_sparse_problem
from fastunroll.metrics import nmse_db
from fastunroll.nn import HyperLISTA
from fastunroll.training.search import refine, search


class Bowl(nn.Module):
    """Two numbers and a matrix; a deep minimum at (0.3, 20) beside a shallow one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.second = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.matrix = nn.Parameter(torch.ones(2, 2))

    def value(self) -> float:
        x, y = (math.log(p.item() / c) for p, c in ((self.first, 0.3), (self.second, 20)))
        return min(x * x + y * y - 1, (x - 2) ** 2 + (y + 3) ** 2)


RANGES = {"first": (0.01, 10.0), "second": (0.1, 100.0)}


def test_it_finds_the_deep_minimum() -> None:
    model = Bowl()
    best = search(model, RANGES, Bowl.value, n_evaluations=200)
    assert best == model.value() == pytest.approx(-1, abs=1e-6)
    assert model.first.item() == pytest.approx(0.3, rel=1e-3)
    assert model.second.item() == pytest.approx(20, rel=1e-3)
    assert bool((model.matrix == 1).all())


@pytest.mark.parametrize("first", [0.01, 10.0])
def test_a_refinement_leaves_the_face_where_it_starts(first: float) -> None:
    model = Bowl()
    with torch.no_grad():
        model.first.fill_(first)
        model.second.fill_(20.0)
    refine(model, RANGES, lambda model: math.log(model.first.item() / 0.3) ** 2, n_evaluations=60)
    assert model.first.item() == pytest.approx(0.3, rel=1e-2)


def test_it_is_repeatable_and_keeps_to_its_ranges_and_budget() -> None:
    tried: list[tuple[float, float]] = []

    def evaluate(model: Bowl) -> float:
        tried.append((model.first.item(), model.second.item()))
        return -model.first.item()

    model, again = Bowl(), Bowl()
    search(model, RANGES, evaluate, n_evaluations=100)
    assert 50 < len(tried) <= 120
    for first, second in tried:
        assert 0.01 * 0.999 <= first <= 10 * 1.001
        assert 0.1 * 0.999 <= second <= 100 * 1.001
    search(again, RANGES, evaluate, n_evaluations=100)
    assert torch.equal(model.first, again.first)
    assert model.first.item() > 9


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverging_model_counts_as_worst(bad: float) -> None:
    model = Bowl()
    search(model, RANGES, lambda m: bad if m.first > 0.2 else -float(m.first), n_evaluations=100)
    assert 0.15 < model.first.item() <= 0.2


def test_nothing_but_failures_is_an_error() -> None:
    with pytest.raises(ValueError, match="evaluate"):
        search(Bowl(), RANGES, lambda _: math.nan, n_evaluations=20)


def test_refinement_starts_from_the_values_there_are() -> None:
    near, far = Bowl(), Bowl()
    with torch.no_grad():
        near.first.fill_(0.2)
        near.second.fill_(30)
        far.first.fill_(2.5)
        far.second.fill_(1e-3)  # below its range
    assert refine(near, RANGES, Bowl.value, n_evaluations=100) == pytest.approx(-1, abs=1e-6)
    assert near.first.item() == pytest.approx(0.3, rel=1e-3)
    assert refine(far, RANGES, Bowl.value, n_evaluations=100) == pytest.approx(far.value())
    assert far.first.item() > 1, "it went to the shallow minimum nearby"
    with pytest.raises(ValueError, match="evaluate"):
        refine(near, RANGES, lambda _: math.nan, n_evaluations=20)


def test_hyperlista_improves() -> None:
    problem = make_sparse_problem(40, 80, density=0.05, snr_db=30)
    b, codes = problem.sample(50, torch.Generator().manual_seed(0))

    def error(network: HyperLISTA) -> float:
        return nmse_db(network(b), codes)

    network = HyperLISTA(problem.dictionary, 6)
    before = error(network)
    best = search(network, network.ranges, error, n_evaluations=60)
    assert best == pytest.approx(error(network))
    assert best < before - 3


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({}, "at least one"),
        ({"third": (0.1, 1.0)}, "'third'.*first, second"),
        ({"matrix": (0.1, 1.0)}, "'matrix'"),
        ({"first": (0.0, 1.0)}, r"ranges\['first'\]\[0\]"),
        ({"first": (1.0, 1.0)}, r"ranges\['first'\]\[1\]"),
    ],
)
def test_bad_ranges(ranges: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(Bowl(), ranges, Bowl.value)


def test_bad_budget() -> None:
    def never(_: Tensor) -> float:
        raise AssertionError

    with pytest.raises(ValueError, match="n_evaluations"):
        search(Bowl(), RANGES, never, n_evaluations=0)
