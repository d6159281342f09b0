"""Data-parallel training: two processes that ``torchrun`` starts, against one."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fastunroll.data import SparseProblem
from fastunroll.data.synthetic import SparseBatch
from fastunroll.dictionary import PUDLE, ArraySource
from fastunroll.dictionary.train import train_dictionary
from fastunroll.io import load_tensors, save_tensors
from fastunroll.losses import supervised_loss
from fastunroll.nn import ALISTA, LPGNet
from fastunroll.training import Stage, Trainer
from fastunroll.training.distributed import Ranks, process_group

DICTIONARY = normalize(
    torch.randn(10, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=0
)
PROBLEM = SparseProblem(DICTIONARY, density=0.2, snr_db=30.0)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
N_STEPS = 12
BATCH = 8
TIMEOUT = 30.0  # for `hang`, whose processes must have started by then


def sample(generator: torch.Generator) -> SparseBatch:
    return PROBLEM.sample(BATCH, generator)


HELD_OUT = sample(torch.Generator().manual_seed(1))


def loss(model: Any, batch: SparseBatch) -> Tensor:
    return supervised_loss(model(batch.measurements), batch.codes)


def loss_of_two_layers(model: Any, batch: SparseBatch) -> Tensor:
    return supervised_loss(model.unroll(batch.measurements, n_layers=2).codes, batch.codes)


def validate(model: nn.Module) -> float:
    return float(loss(model, HELD_OUT))


def pudle(directory: Path | None, dtype: torch.dtype = torch.float64) -> PUDLE:
    """Learn a dictionary, lambda and the step."""
    options = {"learn_step": True, "learn_lam": True}
    model = PUDLE(DICTIONARY.to(dtype), 5, lam=0.1, step=0.2, **options)
    samples = sample(torch.Generator().manual_seed(2)).measurements.repeat(20, 1)
    source = ArraySource(samples, BATCH, dtype=dtype)
    train_dictionary(model, source, N_STEPS, directory=directory, validate_every=5)
    return model


def pudle_in_float32(directory: Path | None) -> PUDLE:
    return pudle(directory, torch.float32)


def lpg_net(
    directory: Path | None,
    source: Callable[[torch.Generator], Any] = sample,
    *,
    resume: bool = False,
) -> LPGNet:
    """Train in two stages; the first does not look at the last layer."""
    model = LPGNet(DICTIONARY, n_layers=3)
    stages = [
        Stage(name="two layers", max_steps=N_STEPS // 2, loss=loss_of_two_layers),
        Stage(name="all", max_steps=N_STEPS // 2, learning_rate=1e-2, patience=50),
    ]
    options: dict[str, Any] = {"validate": validate, "validate_every": 2, "gradient_clip": 0.5}
    trainer = Trainer(model, source, loss, stages, directory=directory, **options)
    trainer.fit(resume=resume)
    return model


def alista(directory: Path | None) -> ALISTA:
    """Train the numbers of one layer after the other."""
    model = ALISTA(DICTIONARY, n_layers=3)
    stages = [
        Stage(name=f"layer {k}", max_steps=4, parameters=model.layer_parameters(k))
        for k in range(3)
    ]
    Trainer(model, sample, loss, stages, directory=directory).fit()
    return model


CASES = (pudle, pudle_in_float32, lpg_net, alista)


def at_call(number: int, action: Callable[[], None]) -> Callable[[torch.Generator], SparseBatch]:
    """The source, with an action before the batch of one of its calls."""
    calls = itertools.count(1)

    def source(generator: torch.Generator) -> SparseBatch:
        if next(calls) == number:
            action()
        return sample(generator)

    return source


# ---- what the processes do; the name of one of these and a folder are their arguments


def save(model: nn.Module, path: Path) -> None:
    save_tensors(model.state_dict(), {}, path)


def train_all(folder: Path, rank: int) -> None:
    """Every case; an interruption of the second process alone; and errors."""
    for case in CASES:
        name = case.__name__
        save(case(folder / name / str(rank)), folder / f"{name}-{rank}.safetensors")
    stop = at_call(8, lambda: signal.raise_signal(signal.SIGINT))
    try:
        lpg_net(folder / "stopped" / str(rank), stop if rank == 1 else sample)
    except KeyboardInterrupt:
        assert rank == 1
    again = lpg_net(folder / "stopped" / str(rank), resume=True)
    save(again, folder / f"resumed-{rank}.safetensors")
    for number, attempt in enumerate((refuse, odd, differ)):
        try:
            attempt(folder, rank)
        except Exception as error:
            (folder / f"error-{number}-{rank}").write_text(f"{type(error).__name__}: {error}")
    garbage: list[Any] = [torch.distributed.group.WORLD]
    garbage.append(garbage)  # a cycle, so that it stays until the collector runs


def refuse(folder: Path, rank: int) -> None:
    """A folder with an old training, which only the first process sees."""
    lpg_net(folder / "lpg_net" / str(rank))


def odd(folder: Path, rank: int) -> None:
    lpg_net(None, lambda generator: PROBLEM.sample(BATCH + 1, generator))


def differ(folder: Path, rank: int) -> None:
    """The part of the batch that the second process gets is not finite."""

    def source(generator: torch.Generator) -> SparseBatch:
        batch = sample(generator)
        batch.measurements[BATCH // 2 :] = torch.nan
        return batch

    lpg_net(None, source)


def fail(folder: Path, rank: int) -> None:
    """The second process fails in the middle."""

    def broken() -> None:
        raise RuntimeError("no memory")

    lpg_net(None, at_call(4, broken) if rank == 1 else sample)


def hang(folder: Path, rank: int) -> None:
    """The second process is stuck for longer than the first one waits."""
    lpg_net(None, at_call(4, lambda: time.sleep(600)) if rank == 1 else sample)


def interrupt(folder: Path, rank: int) -> None:
    """The second process is interrupted, and says so in another error, as the commands do."""
    try:
        lpg_net(None, at_call(4, lambda: signal.raise_signal(signal.SIGINT)) if rank else sample)
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error


def threads() -> int:
    """Threads of this process, after those that are about to end."""
    deadline = time.monotonic() + 10.0
    while (count := len(os.listdir("/proc/self/task"))) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return count


if __name__ == "__main__":
    try:
        with process_group(TIMEOUT if sys.argv[1] == "hang" else 60.0):
            globals()[sys.argv[1]](Path(sys.argv[2]), int(os.environ["RANK"]))
    finally:
        # A thread of the group that is left may abort the process while the interpreter ends.
        if threads() > 1:
            print("threads outlive the process group", file=sys.stderr)
            sys.exit(2)
    sys.exit()


# ---- the tests


def start(*arguments: object, **variables: object) -> subprocess.Popen[str]:
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    environment |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def start_two(name: str, folder: Path) -> list[subprocess.Popen[str]]:
    """Start two processes that run a function of this file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(__file__, name, folder, RANK=rank, **variables) for rank in range(2)]


@pytest.fixture(scope="module")
def pairs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, list[subprocess.Popen[str]]]]:
    """Two processes for each function that ends early, all at the same time."""
    folder = tmp_path_factory.mktemp("broken")
    pairs = {name: start_two(name, folder) for name in ("fail", "hang", "interrupt")}
    yield pairs
    for process in (process for pair in pairs.values() for process in pair):
        process.kill()
        process.communicate()


def test_a_failure_ends_the_other_process(pairs: dict[str, list[subprocess.Popen[str]]]) -> None:
    first, _ = pairs["fail"]
    _, messages = first.communicate(timeout=300)
    assert first.returncode == 1
    assert "RuntimeError" in messages
    assert "imed out" not in messages


def test_an_interruption_ends_both(pairs: dict[str, list[subprocess.Popen[str]]]) -> None:
    messages = [process.communicate(timeout=300)[1] for process in pairs["interrupt"]]
    assert [process.returncode for process in pairs["interrupt"]] == [0, 130], messages


def assert_close(path: Path, expected: nn.Module) -> None:
    tensors, _ = load_tensors(path)
    for name, tensor in expected.state_dict().items():
        error = (tensors[name] - tensor).abs().max() / tensor.abs().max()
        assert error <= TOLERANCE[tensor.dtype], f"{name}: {error}"


def assert_same(first: Path, second: Path) -> None:
    tensors, others = load_tensors(first)[0], load_tensors(second)[0]
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of every case by two processes that torchrun started."""
    folder = tmp_path_factory.mktemp("trained")
    options = ("--standalone", "--nproc-per-node", 2)
    process = start("-m", "torch.distributed.run", *options, __file__, "train_all", folder)
    _, messages = process.communicate()
    assert process.returncode == 0, messages
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_like_one(trained: Path, case: Callable[..., nn.Module]) -> None:
    expected = case(None)
    for rank in range(2):
        assert_close(trained / f"{case.__name__}-{rank}.safetensors", expected)
    assert_same(*(trained / f"{case.__name__}-{rank}.safetensors" for rank in range(2)))


@pytest.mark.parametrize("case", CASES)
def test_only_the_first_process_writes(trained: Path, case: Callable[..., nn.Module]) -> None:
    files = sorted(path.name for path in (trained / case.__name__).rglob("*") if path.is_file())
    assert files == ["checkpoint.safetensors", "log.csv"]
    assert (trained / case.__name__ / "0" / "log.csv").exists()


def test_the_log_has_the_losses_of_whole_batches(trained: Path, tmp_path: Path) -> None:
    lpg_net(tmp_path)
    columns = ("loss", "validation", "best")
    rows: list[list[float]] = []
    for path in (trained / "lpg_net" / "0", tmp_path):
        with (path / "log.csv").open(newline="") as file:
            rows.append([float(row[c]) for row in csv.DictReader(file) for c in columns if row[c]])
    assert rows[0] == pytest.approx(rows[1], rel=1e-9)
    assert len(rows[0]) > N_STEPS


def test_an_interrupted_training_resumes(trained: Path) -> None:
    for rank in range(2):
        assert_same(trained / f"resumed-{rank}.safetensors", trained / "lpg_net-0.safetensors")
    assert not (trained / "stopped" / "1").exists()


def test_one_process_goes_on_where_two_stopped(trained: Path) -> None:
    model = lpg_net(trained / "lpg_net" / "0", resume=True)
    assert_close(trained / "lpg_net-0.safetensors", model)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "FileExistsError"),
        (1, "ValueError: source must return batches that 2 processes can share equally, got 9"),
        (2, "FloatingPointError: loss is nan"),
    ],
)
def test_errors_are_the_same_on_both(trained: Path, number: int, expected: str) -> None:
    messages = [(trained / f"error-{number}-{rank}").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert messages[0].startswith(expected)


def test_without_a_group_there_is_one_process() -> None:
    ranks = Ranks()
    batch = object()
    assert ranks.is_first
    assert ranks.part(batch) is batch
    with process_group() as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_timeout_must_be_positive() -> None:
    with pytest.raises(ValueError, match="timeout must be"), process_group(0):
        pass


def test_waiting_has_an_end(pairs: dict[str, list[subprocess.Popen[str]]]) -> None:
    first, _ = pairs["hang"]
    _, messages = first.communicate(timeout=300)
    assert first.returncode == 1
    assert "imed out" in messages
    assert "in _step" in messages, "it waited in another place"
