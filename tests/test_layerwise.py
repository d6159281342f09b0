"""Schedules and the training in one call: what they train, and that it pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastunroll.data import SparseProblem
from fastunroll.data.benchmark import BenchmarkProblem, make_benchmark
from fastunroll.losses import lasso_loss
from fastunroll.metrics import nmse_db
from fastunroll.nn import (
    ALISTA,
    LIHT,
    LIHTCP,
    LISTA,
    LISTACP,
    NAALISTA,
    LPGNet,
    StepLISTA,
    SupportSelection,
    TiLISTA,
)
from fastunroll.nn.catalogue import create
from fastunroll.training import Stage, Trainer, TrainingResult
from fastunroll.training.layerwise import (
    PUBLISHED,
    Phase,
    end_to_end_stage,
    fast_phases,
    layerwise_stages,
)
from fastunroll.training.recovery import log_error, squared_error, train_recovery

N_LAYERS = 3
STEPS = 12
N_STEPS = N_LAYERS * STEPS


def make_problem(**changes: Any) -> BenchmarkProblem:
    sizes = {"n_measurements": 20, "n_atoms": 40, "n_test": 300, "n_validation": 200}
    return make_benchmark(**{**sizes, "dtype": torch.float64, **changes})


PROBLEM = make_problem()


def make_model(n_layers: int = N_LAYERS) -> ALISTA:
    return ALISTA(PROBLEM.dictionary, n_layers, support_selection=SupportSelection())


def train(model: Any, directory: Path | None = None, **changes: Any) -> TrainingResult:
    defaults = {"problem": PROBLEM, "budget": STEPS, "batch_size": 16, "directory": directory}
    return train_recovery(model, **{**defaults, **changes})


def make_stages(model: Any, *phases: Phase) -> list[Stage]:
    return layerwise_stages(
        model, log_error, lambda x, batch: nmse_db(x, batch.codes), PROBLEM.validation, phases
    )


def state(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model: torch.nn.Module, expected: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


# ---- stages


def test_each_layer_passes_through_all_phases() -> None:
    model = TiLISTA(PROBLEM.dictionary, 2)
    stages = make_stages(model, *PUBLISHED)
    assert [stage.name for stage in stages] == [
        f"layer {layer}, {phase}"
        for layer in (1, 2)
        for phase in ("new layer", "layers so far", "fine tuning")
    ]
    new = {"steps.1": 5e-4, "thresholds.1": 5e-4}
    so_far = ("steps.0", "thresholds.0", "steps.1", "thresholds.1", "weight")
    assert stages[3].parameters == new
    assert stages[4].parameters == dict.fromkeys(so_far, 1e-4)
    assert stages[5].parameters == dict.fromkeys(so_far, 1e-5)
    assert {(stage.max_steps, stage.patience) for stage in stages} == {(200_000, 4000)}


def test_a_budget_is_the_number_of_steps_per_layer() -> None:
    for steps in (3, 4, 5, 100):
        assert sum(phase.steps for phase in fast_phases(steps)) == steps


def test_stages_look_at_the_first_layers() -> None:
    model = make_model()
    batch = PROBLEM.validation
    for layer, stage in enumerate(make_stages(model, *fast_phases(3)[:1]), start=1):
        expected = ALISTA(PROBLEM.dictionary, layer, support_selection=SupportSelection())
        codes = expected(batch.measurements)
        torch.testing.assert_close(stage.loss(model, batch), log_error(codes, batch))
        assert stage.validate(model) == pytest.approx(nmse_db(codes, batch.codes))


def test_deep_supervision_is_the_mean_over_the_layers() -> None:
    model, batch = make_model(), PROBLEM.validation
    stage = end_to_end_stage(
        model,
        log_error,
        lambda x, _: float(x.sum()),
        batch,
        fast_phases(3)[0],
        deep_supervision=True,
    )
    iterates = model.unroll(batch.measurements, iterates=True).iterates
    expected = sum(nmse_db(codes, batch.codes) for codes in iterates[1:]) / N_LAYERS
    assert stage.loss(model, batch).item() == pytest.approx(expected)
    assert set(stage.parameters) == {
        f"{kind}.{k}" for kind in ("steps", "thresholds") for k in range(3)
    }


def test_a_new_layer_starts_where_the_one_before_ended() -> None:
    model = make_model()
    train(model, None)
    before = model.get_parameter("thresholds.0").clone()
    begin = [stage.begin for stage in make_stages(model, *fast_phases(3))]
    assert [b is not None for b in begin] == [False, False, False, *[True, False, False] * 2]
    with torch.no_grad():
        begin[3](model)
    assert torch.equal(model.get_parameter("thresholds.1"), before)


def test_a_layer_without_its_like_before_it_keeps_its_start() -> None:
    model = create("admm-csnet", PROBLEM.training, N_LAYERS)
    start = state(model)
    with torch.no_grad():
        for name in model.layer_parameters(0):
            model.get_parameter(name).add_(1.0)
    begin = make_stages(model, *fast_phases(3))[3].begin
    assert begin is not None
    with torch.no_grad():
        begin(model)
    assert torch.equal(model.get_parameter("input_weights.1"), start["input_weights.0"] + 1)
    assert torch.equal(model.get_parameter("weights.0"), start["weights.0"])


def test_only_the_new_layer_moves_in_its_phase() -> None:
    model = make_model()
    before = state(model)
    stages = make_stages(model, fast_phases(3)[0])[:2]
    source = PROBLEM.training.sample
    Trainer(model, lambda g: source(16, g), stages[0].loss, stages, progress=False).fit()
    assert not torch.equal(model.get_parameter("steps.1"), before["steps.1"])
    assert torch.equal(model.get_parameter("steps.2"), before["steps.2"])


# ---- learning rates


def single_step(stage: Stage, values: list[float]) -> list[float]:
    """How far one step of a stage moves parameters with these values."""
    model = torch.nn.ParameterDict(
        {f"p{i}": torch.tensor(v, dtype=torch.float64) for i, v in enumerate(values)}
    )
    Trainer(
        model,
        lambda generator: None,
        lambda model, batch: sum(p for p in model.values()),
        [stage],
        progress=False,
    ).fit()
    return [v - float(p.detach()) for v, p in zip(values, model.values(), strict=True)]


def test_relative_rates_count_in_powers_of_two_of_the_values() -> None:
    stage = Stage(name="one", max_steps=1, learning_rate=0.1, relative=True)
    moved = single_step(stage, [1.0, -4.5, 0.03, 0.0])
    assert moved == pytest.approx([0.1, 0.4, 0.1 / 32, 0.1], rel=1e-6)


def test_decay_is_geometric() -> None:
    one = Stage(name="one", max_steps=1, learning_rate=0.1, decay=0.01)
    assert single_step(one, [1.0]) == pytest.approx([0.1], rel=1e-6)
    four = Stage(name="four", max_steps=4, learning_rate=0.1, decay=0.01)
    rates = [0.1 * 0.01 ** (k / 4) for k in range(4)]
    assert single_step(four, [1.0]) == pytest.approx([sum(rates)], rel=1e-5)


def test_the_last_weights_can_be_kept() -> None:
    kept = {}
    for keep_last in (False, True):
        model = torch.nn.ParameterDict({"p": torch.tensor(1.0)})
        stage = Stage(name="one", max_steps=3, learning_rate=0.1, keep_last=keep_last)
        result = Trainer(
            model,
            lambda generator: None,
            lambda model, batch: model["p"],
            [stage],
            validate=lambda model: -float(model["p"]),
            validate_every=1,
            progress=False,
        ).fit()
        kept[keep_last] = float(model["p"].detach())
        assert result.validation == -kept[keep_last]
    assert kept == pytest.approx({False: 1.0, True: 0.7}, rel=1e-5)


def test_layerwise_training_ends_with_the_squared_error_and_all_layers() -> None:
    model, batch = make_model(), PROBLEM.validation
    trained = train(model, budget=6)
    assert [r.stage for r in trained.records][-1] == "all layers"
    assert trained.validation == pytest.approx(nmse_db(model(batch.measurements), batch.codes))
    codes = 0.9 * batch.codes
    expected = 0.01 * batch.codes.square().sum(dim=1).mean()
    torch.testing.assert_close(squared_error(codes, batch), expected)


def test_a_network_that_shares_all_is_trained_at_once() -> None:
    model = NAALISTA(PROBLEM.dictionary, 2, n_hidden=4)
    result = train(model, budget=3)
    assert result.n_steps == 6
    assert {record.stage for record in result.records} == {"all layers"}


def test_lista_cp_goes_on_from_a_trained_alista(tmp_path: Path) -> None:
    model, start = LISTACP(PROBLEM.dictionary, N_LAYERS), ALISTA(PROBLEM.dictionary, N_LAYERS)
    result = train(model, tmp_path)
    first = train(start, budget=STEPS // 2)
    assert result.n_steps == N_STEPS
    assert {record.stage for record in result.records} == {"all layers"}
    assert result.records[0].validation == pytest.approx(first.records[-1].validation, rel=1e-9)
    kept = state(model)
    again = LISTACP(PROBLEM.dictionary, N_LAYERS)
    assert train(again, tmp_path).n_steps == N_STEPS
    assert_same(again, kept)


@pytest.mark.parametrize("model", [LIHT, LIHTCP])
def test_hard_thresholds_learn_from_firm_ones(model: type[LISTA | LISTACP]) -> None:
    problem = make_problem(n_measurements=50, n_atoms=100)
    network = model(problem.dictionary, 10)
    assert problem.evaluate(network).nmse_db > -3
    train(network, problem=problem, budget=60)
    assert problem.evaluate(network).nmse_db < -20


@pytest.mark.parametrize("decay", [0.0, -1.0, float("nan")])
def test_a_decay_must_be_positive(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must be"):
        Stage(name="one", max_steps=1, decay=decay)


# ---- training in one call


@pytest.mark.parametrize("schedule", ["layerwise", "end-to-end", "deep-supervision"])
def test_every_schedule_beats_its_start(schedule: str) -> None:
    model = make_model()
    start = PROBLEM.evaluate(model).nmse_db
    result = train(model, schedule=schedule, budget=60)
    assert result.n_steps == 180
    assert PROBLEM.evaluate(model).nmse_db < start - 1


def test_layer_by_layer_beats_end_to_end() -> None:
    problem = make_problem(n_measurements=50, n_atoms=100)
    reached = {}
    for schedule in ("layerwise", "end-to-end"):
        model = ALISTA(problem.dictionary, 12, support_selection=SupportSelection())
        train(model, schedule=schedule, budget=60, problem=problem)
        reached[schedule] = problem.evaluate(model).nmse_db
    assert reached["layerwise"] < reached["end-to-end"] - 0.3


def test_the_lasso_loss_needs_no_true_codes() -> None:
    blind = SparseProblem.sample

    def sample(problem: SparseProblem, *arguments: Any) -> Any:
        return blind(problem, *arguments)._replace(codes=None)

    model = StepLISTA(PROBLEM.dictionary, N_LAYERS, lam=0.3)

    def objective() -> float:
        b = PROBLEM.test.measurements
        with torch.no_grad():
            return float(lasso_loss(model(b), b, PROBLEM.dictionary, 0.3))

    start = objective()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SparseProblem, "sample", sample)
        result = train(model, loss="lasso", lam=0.3, budget=60)
    assert objective() < 0.95 * start
    assert result.validation == pytest.approx(objective(), rel=0.1)


def test_log_error_is_the_nmse_and_has_a_value_at_zero() -> None:
    batch = PROBLEM.validation
    codes = 0.9 * batch.codes
    assert float(log_error(codes, batch)) == pytest.approx(nmse_db(codes, batch.codes))
    exact = batch.codes.clone().requires_grad_()
    log_error(exact, batch).backward()
    assert bool(torch.isfinite(exact.grad).all())
    empty = batch._replace(codes=torch.zeros_like(codes))
    assert float(log_error(empty.codes, empty)) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"schedule": "random"}, ValueError, "schedule must be one of layerwise, end-to-end"),
        ({"loss": "l1"}, ValueError, "loss must be one of supervised, lasso"),
        ({"budget": "huge"}, ValueError, "budget must be one of quick, full"),
        ({"budget": 2}, ValueError, "budget must be at least 3 steps per layer, got 2"),
        ({"budget": 1.5}, TypeError, "budget must be an int"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"lam": -1.0}, ValueError, "lam must be at least 0"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"problem": make_problem(seed=1)}, ValueError, "model must be made with problem"),
        ({"model": LPGNet(PROBLEM.dictionary)}, TypeError, "must be a LayeredNetwork, got LPGNet"),
    ],
)
def test_bad_arguments_are_named(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = arguments.pop("model", None) or make_model()
    with pytest.raises(error, match=message):
        train(model, **arguments)
