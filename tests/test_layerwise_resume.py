"""Layer-wise trainings that are interrupted or killed go on exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_layerwise import N_STEPS, assert_same, make_model, make_problem, state, train
from torch import Tensor

from fastunroll.data import SparseProblem
from fastunroll.training import Trainer, recovery


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    model = make_model()
    assert train(model, tmp_path_factory.mktemp("whole")).n_steps == N_STEPS
    return state(model)


def at_sample(patch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Act before the training batch of one step."""
    sample, calls = SparseProblem.sample, []

    def watched(problem: SparseProblem, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            action()
        return sample(problem, *arguments)

    patch.setattr(SparseProblem, "sample", watched)


# 6 ends a layer, 7 and 13 are the first steps of new layers, 10 ends a phase; from 19, all layers.
@pytest.mark.parametrize("step", [1, 6, 7, 10, 13, 18, 19, 27, 36])
def test_resume_after_ctrl_c_is_exact(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Tensor]
) -> None:
    with monkeypatch.context() as patch:
        at_sample(patch, step, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            train(make_model(), tmp_path)
    model = make_model()
    assert train(model, tmp_path).n_steps == N_STEPS
    assert_same(model, whole)


def killed_training(directory: str) -> None:
    """Body of a process that kills itself in its 23rd step, amid the stage of all layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "Trainer", partial(Trainer, checkpoint_seconds=0.0))
        at_sample(patch, 23, lambda: os.kill(os.getpid(), signal.SIGKILL))
        train(make_model(), Path(directory))


def test_resume_after_a_kill_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Tensor]
) -> None:
    code = f"import test_layerwise_resume; test_layerwise_resume.killed_training({str(tmp_path)!r})"
    process = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert process.returncode == -signal.SIGKILL
    steps: list[int] = []
    sample = SparseProblem.sample
    monkeypatch.setattr(
        SparseProblem, "sample", lambda *arguments: steps.append(1) or sample(*arguments)
    )
    model = make_model()
    train(model, tmp_path)
    assert len(steps) == N_STEPS - 22
    assert_same(model, whole)


@pytest.mark.parametrize(
    "changes", [{"problem": make_problem(variant="snr20")}, {"batch_size": 8}, {"loss": "lasso"}]
)
def test_a_run_on_other_data_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    train(make_model(), tmp_path)
    with pytest.raises(ValueError, match="belongs to another training: its data is"):
        train(make_model(), tmp_path, **changes)
