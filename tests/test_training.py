"""The trainer: stages, best weights, errors and what it shows."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastunroll.losses import supervised_loss
from fastunroll.nn import LPGNet
from fastunroll.training import Stage, Trainer

Batch = tuple[Tensor, Tensor]
DICTIONARY = torch.randn(6, 10, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
STAGES = [
    Stage(name="steps", max_steps=12, learning_rate=1e-2, parameters=["step_*"]),
    Stage(name="all", max_steps=15, parameters={"step_*": 1e-2, "threshold_raw": 2e-2}, patience=9),
    Stage(name="too fast", max_steps=50, learning_rate=3.0, patience=9),
]
N_STEPS = 47
"""12 + 15 + 20: patience ends the last stage."""


def make_model(n_layers: int = 3) -> LPGNet:
    """A network whose start does not follow the defaults of LPG-Net, which may change."""
    longest = 1.9 / float(torch.linalg.matrix_norm(DICTIONARY, 2)) ** 2
    model = LPGNet(DICTIONARY, n_layers=n_layers, step_range=(longest / 19, longest))
    torch.nn.init.zeros_(model.step_bias)
    torch.nn.init.constant_(model.threshold_raw, -2.25)  # softplus: 0.1
    return model


def sample(generator: torch.Generator) -> Batch:
    mask = torch.rand(64, 10, generator=generator, dtype=torch.float64) < 0.2
    codes = mask * torch.randn(64, 10, generator=generator, dtype=torch.float64)
    return codes @ DICTIONARY.T, codes


def loss(model: LPGNet, batch: Batch) -> Tensor:
    return supervised_loss(model(batch[0]), batch[1])


def validate(model: LPGNet) -> float:
    return loss(model, sample(torch.Generator().manual_seed(99))).item()


def make_trainer(
    directory: Path | None = None,
    source: Callable[[torch.Generator], Batch] = sample,
    **changes: Any,
) -> Trainer[LPGNet, Batch]:
    arguments: dict[str, Any] = {
        "model": make_model(),
        "source": source,
        "loss": loss,
        "stages": STAGES,
        "validate": validate,
        "validate_every": 5,
        "directory": directory,
        "checkpoint_seconds": 1e9,
    }
    return Trainer(**{**arguments, **changes})


def at_call(number: int, action: Callable[[], None]) -> Callable[[torch.Generator], Batch]:
    """The source, with an action before the batch of one of its calls."""
    calls = itertools.count(1)

    def source(generator: torch.Generator) -> Batch:
        if next(calls) == number:
            action()
        return sample(generator)

    return source


def fail() -> None:
    raise RuntimeError("the source failed")


def assert_same_weights(model: LPGNet, expected: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


# ---- what a training does


def test_the_shortest_call_trains() -> None:
    model = make_model()
    before = validate(model)
    stage = Stage(name="all", max_steps=100, learning_rate=1e-2)
    trainer = Trainer(model, sample, loss, [stage])
    result = trainer.fit()
    assert validate(model) < 0.9 * before
    assert result.n_steps == 100
    assert result.validation is None


@pytest.mark.parametrize("clip", [None, 0.05])
def test_weights_are_those_of_a_plain_loop_of_adam(clip: float | None) -> None:
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    generator = torch.Generator().manual_seed(5)
    for _ in range(7):
        optimizer.zero_grad()
        loss(model, sample(generator)).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    stages = [Stage(name="all", max_steps=7, learning_rate=1e-2)]
    trainer = make_trainer(stages=stages, seed=5, gradient_clip=clip, validate=None)
    trainer.fit()
    assert_same_weights(trainer.model, model.state_dict())


def test_a_seed_decides_the_weights() -> None:
    first, same, other = make_trainer(seed=3), make_trainer(seed=3), make_trainer(seed=1)
    for trainer in (first, same, other):
        trainer.fit()
    assert_same_weights(first.model, same.model.state_dict())
    assert not torch.equal(first.model.step_bias, other.model.step_bias)


def test_a_stage_trains_its_parameters_only() -> None:
    trainer = make_trainer(stages=STAGES[:1])
    before = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    seen = []

    def watched_loss(model: LPGNet, batch: Batch) -> Tensor:
        seen.append(model.threshold_raw.requires_grad)
        return loss(model, batch)

    trainer.loss = watched_loss
    trainer.fit()
    after = trainer.model.state_dict()
    assert torch.equal(after["threshold_raw"], before["threshold_raw"])
    assert not torch.equal(after["step_bias"], before["step_bias"])
    assert set(seen) == {False}
    assert trainer.model.threshold_raw.requires_grad


def test_a_mapping_gives_learning_rates() -> None:
    rates = {"step_bias": 1e-2, "threshold_raw": 1e-4}
    trainer = make_trainer(stages=[Stage(name="one", max_steps=1, parameters=rates)], validate=None)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.fit()
    for name, rate in rates.items():  # the first step of Adam has the length of its rate
        moved = (trainer.model.get_parameter(name) - before[name]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, rate), rtol=1e-3, atol=0)


def test_a_stage_can_have_its_own_loss_and_validation() -> None:
    stage = Stage(
        name="bias",
        max_steps=40,
        learning_rate=0.1,
        loss=lambda model, _: (model.step_bias - 1).square().sum(),
        validate=lambda model: float((model.step_bias - 1).abs().max()),
    )
    trainer = make_trainer(stages=[stage])
    result = trainer.fit()
    assert result.validation is not None
    assert result.validation < 0.2
    assert result.validation == float((trainer.model.step_bias - 1).detach().abs().max())


def test_patience_ends_a_stage_and_the_best_weights_return() -> None:
    values = iter([5.0, 4.0, 3.0, 3.5, 3.0, 9.0, 0.0])
    seen = []

    def scripted(model: LPGNet) -> float:
        seen.append(model.step_bias.detach().clone())
        return next(values)

    stage = Stage(name="all", max_steps=100, patience=6)
    trainer = make_trainer(stages=[stage], validate=scripted, validate_every=2)
    result = trainer.fit()
    assert [record.stage_step for record in result.records] == [0, 2, 4, 6, 8, 10]
    assert [record.best for record in result.records] == [5.0, 4.0, 3.0, 3.0, 3.0, 3.0]
    assert result.n_steps == 10
    assert result.validation == 3.0
    assert torch.equal(trainer.model.step_bias, seen[2])
    assert not torch.equal(seen[2], seen[-1])


def test_the_mode_of_the_model_returns() -> None:
    for training in (True, False):
        trainer = make_trainer(validate=lambda model: float(model.training))
        trainer.model.train(training)
        result = trainer.fit()
        assert {record.validation for record in result.records} == {0.0}
        assert trainer.model.training is training


# ---- numbers that are not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path, value: float) -> None:
    calls = itertools.count(1)

    def failing(model: LPGNet, batch: Batch) -> Tensor:
        return loss(model, batch) * (value if next(calls) == 16 else 1.0)

    with pytest.raises(FloatingPointError, match=r"loss is .* at step 4 of stage 'all'.*is kept"):
        make_trainer(tmp_path, loss=failing).fit()
    assert make_trainer(tmp_path).fit(resume=True).finished


def test_a_gradient_that_is_not_finite_is_an_error() -> None:
    trainer = make_trainer(loss=lambda model, _: model.step_bias.abs().sqrt().sum())
    with pytest.raises(FloatingPointError, match=r"gradient norm is .* at step 1 of stage 'steps'"):
        trainer.fit()
    assert_same_weights(trainer.model, make_model().state_dict())


def test_a_validation_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="validation is nan at step 0 of stage 'steps'"):
        make_trainer(validate=lambda model: float("nan")).fit()


# ---- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "stages must hold stages with different names"),
        ({"stages": STAGES[:1] * 2}, "stages must hold stages with different names"),
        ({"stages": [Stage(name="a", max_steps=1, parameters=["w"])]}, "'w' matches no trainable"),
        (
            {"stages": [Stage(name="a", max_steps=1, parameters=["step_*", "*bias"])]},
            "what an earlier pattern matches: step_bias",
        ),
        ({"validate": None}, "validate must be given: stage 'all' has a patience"),
        ({"validate_every": 0}, "validate_every must be at least 1"),
        ({"gradient_clip": 0.0}, "gradient_clip must be greater than 0"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds must be at least 0"),
        ({"tensorboard": True}, "directory must be given"),
    ],
)
def test_bad_arguments_of_a_trainer(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be greater than 0"),
        ({"parameters": {"a": -1.0}}, ValueError, "learning_rate must be greater than 0"),
        ({"parameters": "a"}, TypeError, "parameters must be a list of names"),
        ({"patience": 0}, ValueError, "patience must be at least 1"),
    ],
)
def test_bad_arguments_of_a_stage(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Stage(**{"name": "a", "max_steps": 1, **changes})


def test_resume_needs_a_directory_and_the_loss_a_scalar() -> None:
    with pytest.raises(ValueError, match="directory must be given: resume"):
        make_trainer().fit(resume=True)
    with pytest.raises(ValueError, match=r"loss must return a scalar, got shape \(3,\)"):
        make_trainer(loss=lambda model, _: model.step_bias).fit()


# ---- what a training shows


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_stage_numbers_and_best(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "150")
    make_trainer(validation_name="error [x]").fit()
    lines = [line for line in terminal.getvalue().splitlines() if "15/15" in line]
    for word in ("all", "loss ", "error [x] ", "best "):
        assert word in lines[-1], word
    shown = len(terminal.getvalue())
    make_trainer(progress=False).fit()
    assert len(terminal.getvalue()) == shown


def test_progress_is_quiet_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    make_trainer().fit()
    assert capfd.readouterr() == ("", "")


def test_tensorboard_events(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    arguments: dict[str, Any] = {"tensorboard": True, "validation_name": "error"}
    with pytest.raises(RuntimeError, match="the source failed"):  # events after the checkpoint
        make_trainer(tmp_path, at_call(23, fail), **arguments).fit()
    result = make_trainer(tmp_path, **arguments).fit(resume=True)
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    records = [record for record in result.records if record.stage_step]
    for tag, field in (("error", "validation"), ("loss", "loss")):
        assert [event.step for event in events.Scalars(tag)] == [record.step for record in records]
        values = [event.value for event in events.Scalars(tag)]
        assert values == pytest.approx([getattr(record, field) for record in records])


def test_missing_tensorboard_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastunroll.training.trainer.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"fastunroll\[tensorboard\]"):
        make_trainer(tmp_path, tensorboard=True)
