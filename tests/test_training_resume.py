"""Resume of an interrupted training: exact bit for bit, and refused where it cannot be."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import (
    DICTIONARY,
    N_STEPS,
    STAGES,
    assert_same_weights,
    at_call,
    fail,
    make_model,
    make_trainer,
    sample,
)
from torch import Tensor

from fastunroll.io import save_model
from fastunroll.nn import LPGNet
from fastunroll.training import Stage, TrainingResult


def without_seconds(result: TrainingResult) -> list[tuple[Any, ...]]:
    return [record[:-1] for record in result.records]


def csv_rows(directory: Path) -> list[list[str]]:
    with (directory / "log.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """Weights, records and log of a training that was never stopped."""
    directory = tmp_path_factory.mktemp("whole")
    trainer = make_trainer(directory)
    result = trainer.fit()
    assert result.finished
    assert result.n_steps == N_STEPS
    return trainer.model.state_dict(), without_seconds(result), csv_rows(directory)


@pytest.mark.parametrize("step", [1, 5, 11, 12, 13, 20, 27, 41, 47])
def test_resume_after_ctrl_c_is_exact(step: int, tmp_path: Path, whole: tuple[Any, ...]) -> None:
    stopped = make_trainer(tmp_path, at_call(step, lambda: signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    resumed = make_trainer(tmp_path)
    result = resumed.fit(resume=True)
    assert result.finished
    assert_same_weights(resumed.model, whole[0])
    assert without_seconds(result) == whole[1]
    assert csv_rows(tmp_path) == whole[2]


def test_records_after_the_last_checkpoint_are_replaced(
    tmp_path: Path, whole: tuple[Any, ...]
) -> None:
    with pytest.raises(RuntimeError, match="the source failed"):
        make_trainer(tmp_path, at_call(23, fail)).fit()
    assert csv_rows(tmp_path)[-1][:3] == ["all", "10", "22"]  # the checkpoint is that of step 12
    with (tmp_path / "log.csv").open("a") as file:
        file.write("all,1")
    resumed = make_trainer(tmp_path)
    resumed.fit(resume=True)
    assert_same_weights(resumed.model, whole[0])
    assert csv_rows(tmp_path) == whole[2]


def killed_training(directory: str) -> None:
    """Body of a process that kills itself in its 18th step."""
    kill = at_call(18, lambda: os.kill(os.getpid(), signal.SIGKILL))
    make_trainer(Path(directory), kill, checkpoint_seconds=0.0).fit()


def test_resume_after_a_kill_is_exact(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    code = f"import test_training_resume; test_training_resume.killed_training({str(tmp_path)!r})"
    process = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert process.returncode == -signal.SIGKILL
    calls: list[int] = []
    resumed = make_trainer(tmp_path, lambda generator: calls.append(1) or sample(generator))
    result = resumed.fit(resume=True)
    assert len(calls) == N_STEPS - 17
    assert_same_weights(resumed.model, whole[0])
    assert without_seconds(result) == whole[1]
    assert csv_rows(tmp_path) == whole[2]


def test_sigterm_is_handled_between_steps_by_its_former_handler(tmp_path: Path) -> None:
    received: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        source = at_call(3, lambda: signal.raise_signal(signal.SIGTERM))
        result = make_trainer(tmp_path, source).fit()
    finally:
        signal.signal(signal.SIGTERM, former)
    assert received == [signal.SIGTERM]
    assert not result.finished
    assert result.n_steps == 3
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_a_second_signal_is_not_held_back(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, at_call(2, twice)).fit()
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_resume_of_a_finished_training_returns_its_result(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    first = trainer.fit()
    again = make_trainer(tmp_path, at_call(1, fail))
    assert again.fit(resume=True) == first._replace(seconds=again.fit(resume=True).seconds)
    assert_same_weights(again.model, trainer.model.state_dict())


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path, whole: tuple[Any, ...]) -> None:
    trainer = make_trainer(tmp_path / "new")
    trainer.fit(resume=True)
    assert_same_weights(trainer.model, whole[0])


def test_an_earlier_training_is_not_overwritten(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"continue it with fit\(resume=True\)"):
        make_trainer(tmp_path).fit()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": make_model(4)}, "configuration is .*'n_layers': 3.* here it is .*'n_layers': 4"),
        ({"model": LPGNet(2 * DICTIONARY, 3)}, "its checksum of the fixed tensors"),
        ({"model": make_model().float()}, "its tensor .* here it is"),
        ({"seed": 1}, "its seed is 0, here it is 1"),
        ({"gradient_clip": 1.0}, "its gradient_clip is None, here it is 1.0"),
        ({"validate_every": 4}, "its validate_every is 5"),
        ({"stages": STAGES[:1]}, "its stage 2 is .* here it is None"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "checksum" in message:  # same configuration, another dictionary
        changes["model"].step_range = make_model().step_range
    make_trainer(tmp_path).fit()
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **changes).fit(resume=True)


def test_damaged_checkpoints_and_logs_are_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.csv"
    log.write_text(log.read_text()[:200])
    with pytest.raises(ValueError, match=r"log\.csv must hold the 13 records .* found 2"):
        make_trainer(tmp_path).fit(resume=True)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged"):
        make_trainer(tmp_path).fit(resume=True)
    checkpoint.unlink()
    save_model(make_model(), checkpoint)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        make_trainer(tmp_path).fit(resume=True)


def test_a_checkpoint_holds_data_only(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    content = (tmp_path / "checkpoint.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {"generator", "model/step_bias"} <= header.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.safetensors", "log.csv"}


class Turned(LPGNet):
    """A network one of whose parameters is a transposed view, as those of many layers are."""

    def __init__(self) -> None:
        super().__init__(DICTIONARY, 3)
        self.weight = torch.nn.Parameter(DICTIONARY.T.contiguous().T)

    def forward(self, b: Tensor) -> Tensor:
        return super().forward(b) + b @ self.weight


def test_resume_is_exact_for_parameters_of_any_strides(tmp_path: Path) -> None:
    """The fused Adam walks parameter and state in the order of memory."""
    stages = [Stage(name="all", max_steps=20, learning_rate=1e-2)]
    once = make_trainer(model=Turned(), stages=stages)
    once.fit()
    assert once.model.weight.stride() == (1, 6)
    source = at_call(8, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, source, model=Turned(), stages=stages).fit()
    resumed = make_trainer(tmp_path, model=Turned(), stages=stages)
    resumed.fit(resume=True)
    assert_same_weights(resumed.model, once.model.state_dict())
