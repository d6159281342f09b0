"""The engine without torch: equality with the networks, threads, bad input, no torch imported."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import dictionary
from numpy.typing import NDArray
from torch import Tensor

import fastunroll
from fastunroll import runtime, unrolled_gram, unrolled_prox_gradient
from fastunroll.io import load_model, save_model, save_tensors
from fastunroll.nn import LPGNet
from fastunroll.program import Program

M, N, K = 12, 20, 5
Array = NDArray[Any]


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def lpg_net(dtype: torch.dtype = torch.float32, m: int = M, n: int = N) -> LPGNet:
    model = LPGNet(dictionary(m, n, dtype), n_layers=K, initial_threshold=0.3)
    with torch.no_grad():
        model.step_weight.copy_(0.1 * randn(K))
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(lpg_net(), path)
    return path


def plain(program: Program[Tensor]) -> Program[Array]:
    """The program with arrays of NumPy."""
    arrays: dict[str, Any] = {name: t.detach().numpy() for name, t in program.arrays.items()}
    return Program(**arrays, **program.options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [None, 0, 1, 7, 100])
def test_codes_are_those_of_the_network(
    tmp_path: Path, dtype: torch.dtype, batch: int | None
) -> None:
    model = lpg_net(dtype, m=60, n=110)
    save_model(model, tmp_path / "model.safetensors")
    engine = runtime.load(tmp_path / "model.safetensors")
    b = randn(*([60] if batch is None else [batch, 60]), dtype=dtype)
    with torch.inference_mode():
        expected = model(b).numpy()
    found = engine(b.numpy())
    assert found.dtype == engine.dtype == expected.dtype
    assert np.array_equal(found, expected)
    assert batch == 0 or 0 < np.mean(found != 0) < 1


def programs() -> dict[str, Program[Tensor]]:
    a, w = dictionary(M, N, torch.float32), randn(K, M, N) / 3
    step, threshold = torch.linspace(0.1, 0.3, K), torch.linspace(0.2, 0.05, K)
    tied = Program(dictionary=a, step=step, threshold=threshold)
    fields: dict[str, Any] = {"dictionary": a, "weight": w, "step": step, "threshold": threshold}
    return {
        "tied": tied,
        "weight of all layers": Program(**{**fields, "weight": a + 0.1 * w[0]}),
        "weights": Program(**fields),
        "vectors": Program(
            dictionary=a, step=randn(K, N).abs() + 0.1, threshold=0.2 * randn(K, N).abs()
        ),
        "momentum": Program(**fields, momentum=torch.linspace(0, 0.5, K)),
        "heavy ball": Program(**fields, momentum=torch.linspace(0, 0.5, K), heavy_ball=True),
        "support selection": Program(**fields, bypass=(1, 2, 3, 4, 5)),
        "nonnegative": Program(**fields, prox="nonnegative"),
        "hard": Program(**fields, prox="hard"),
    }


def run_in_torch(p: Program[Tensor], b: Tensor) -> Tensor:
    assert p.dictionary is not None
    assert p.step is not None
    return unrolled_prox_gradient(
        b,
        fastunroll.prepare(p.dictionary, p.weight),
        step=p.step,
        threshold=p.threshold,
        momentum=p.momentum,
        heavy_ball=p.heavy_ball,
        prox=p.prox,
        bypass=p.bypass,
    ).codes


@pytest.mark.parametrize("name", programs())
def test_every_kind_of_program(name: str) -> None:
    program = programs()[name]
    b = randn(9, M, seed=3)
    found = runtime.Engine(plain(program))(b.numpy())
    assert np.array_equal(found, run_in_torch(program, b).numpy())
    if name != "weights":  # the part that the name speaks of counts
        other = runtime.Engine(plain(programs()["weights"]))
        assert not np.array_equal(found, other(b.numpy()))


@pytest.mark.parametrize("sizes", [(4, 60), (60, 70)])
def test_both_forms(sizes: tuple[int, int]) -> None:
    m, n = sizes
    a = dictionary(m, n, torch.float32)
    assert fastunroll.prepare(a).form == ("factored" if m < 10 else "gram")
    program = Program(dictionary=a, step=torch.full((K,), 0.2), threshold=torch.full((K,), 0.1))
    b = randn(9, m)
    found = runtime.Engine(plain(program))(b.numpy())
    assert np.array_equal(found, run_in_torch(program, b).numpy())


def test_original_lista() -> None:
    """x_{k+1} = S(b W1_k + x_k W2_k), against the formula in float64."""
    w1, w2 = randn(K, M, N, seed=1) / 4, randn(K, N, N, seed=2) / 8
    threshold = torch.linspace(0.2, 0.05, K)
    b = randn(9, M)
    program = Program(weight=w1, gram=-w2, step=torch.ones(K), threshold=threshold, skip=False)
    found = runtime.Engine(plain(program))(b.numpy())
    x = torch.zeros(9, N, dtype=torch.float64)
    for k in range(K):
        u = b.double() @ w1[k].double() + x @ w2[k].double()
        x = u.sign() * (u.abs() - threshold[k].double()).clamp(min=0)
    assert np.allclose(found, x, atol=1e-5)
    ours = unrolled_gram(b @ w1, -w2, step=1.0, threshold=threshold, skip=False).codes
    assert np.allclose(found, ours, atol=1e-5)


def test_results_depend_neither_on_the_batch_nor_on_threads() -> None:
    program = plain(lpg_net(m=60, n=110).program())
    one, three = runtime.Engine(program), runtime.Engine(program, n_threads=3)
    b = randn(300, 60).numpy()
    expected = one(b)
    assert np.array_equal(three(b), expected)
    assert np.array_equal(np.stack([one(row) for row in b]), expected)
    assert np.array_equal(one(b[::2]), expected[::2])  # not contiguous
    assert np.array_equal(one(np.asfortranarray(b)), expected)


def test_calls_from_several_python_threads(saved: Path) -> None:
    engine = runtime.load(saved)
    batches = [randn(size, M, seed=size).numpy() for size in range(1, 60)]
    expected = [engine(b) for b in batches]
    with ThreadPoolExecutor(8) as pool:
        for found, want in zip(pool.map(engine, batches * 5), expected * 5, strict=True):
            assert np.array_equal(found, want)


def test_the_gil_is_released() -> None:
    """Python code goes on while a call computes."""
    program = Program(
        dictionary=dictionary(200, 400, torch.float32).numpy(),
        step=np.full(200, 0.1, np.float32),
        threshold=np.zeros(200, np.float32),
    )
    engine = runtime.Engine(program)
    b = randn(300, 200).numpy()
    steps = 0
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(engine, b)
        while not future.done():
            steps += 1
    assert steps > 100


def test_out_is_filled_and_returned(saved: Path) -> None:
    engine = runtime.load(saved)
    b = randn(6, M).numpy()
    out = np.full((6, N), np.nan, np.float32)
    assert engine(b, out=out) is out
    assert np.array_equal(out, engine(b))
    row = np.empty(N, np.float32)
    assert engine(b[2], out=row) is row
    assert np.array_equal(row, out[2])
    assert engine(b[::2], out=out[:3]).base is not None


def test_nan_stays_in_its_sample(saved: Path) -> None:
    engine = runtime.load(saved)
    b = randn(3, M).numpy()
    expected = engine(b)
    b[1, 0] = np.nan
    found = engine(b)
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], expected[[0, 2]])


def test_parameters_of_the_engine_are_its_own() -> None:
    program = plain(programs()["weights"])
    engine = runtime.Engine(program)
    b = randn(3, M).numpy()
    expected = engine(b)
    for array in program.arrays.values():
        array[...] = 0
    assert np.array_equal(engine(b), expected)


@pytest.mark.parametrize(
    ("b", "error", "message"),
    [
        ([0.0] * M, TypeError, "b must be a NumPy array, got list"),
        (np.zeros(M), TypeError, "b must be float32, got float64"),
        (np.zeros(M + 1, np.float32), ValueError, rf"b must be \(batch, {M}\) or \({M},\)"),
        (np.zeros((1, 1, M), np.float32), ValueError, "b must be"),
        (np.float32(1.0).reshape(()), TypeError, "b must be a NumPy array"),
    ],
)
def test_bad_measurements(saved: Path, b: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        runtime.load(saved)(b)


def test_bad_out(saved: Path) -> None:
    engine = runtime.load(saved)
    b = np.zeros((4, M), np.float32)
    good = np.zeros((4, N), np.float32)
    with pytest.raises(TypeError, match="out must be a NumPy array, got list"):
        engine(b, out=[])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="out must be float32, got float64"):
        engine(b, out=good.astype(np.float64))
    with pytest.raises(ValueError, match=r"out must have shape \(4, 20\) to fit b, got \(3, 20\)"):
        engine(b, out=good[:3])
    for bad in (np.asfortranarray(good), np.broadcast_to(good[0], (4, N))):
        with pytest.raises(ValueError, match="out must be C-contiguous, aligned and writeable"):
            engine(b, out=bad)
    memory = np.zeros(4 * N, np.float32)
    with pytest.raises(ValueError, match="out must not share memory with b"):
        engine(memory[: 4 * M].reshape(4, M), out=memory.reshape(4, N))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"threshold": np.zeros(0, np.float32)}, ValueError, "threshold must have shape"),
        ({"threshold": np.zeros(K, np.int64)}, TypeError, "threshold must be float32 or float64"),
        ({"threshold": -np.ones(K, np.float32)}, ValueError, "threshold must be finite and not"),
        ({"step": np.zeros(K, np.float32)}, ValueError, "step must be positive"),
        ({"step": np.ones(K + 1, np.float32)}, ValueError, r"step must have shape \(5,\)"),
        ({"step": None}, ValueError, "either step or both of rule_weight and rule_bias"),
        ({"dictionary": None}, ValueError, "either dictionary or both of gram and weight"),
        ({"dictionary": np.ones(M, np.float32)}, ValueError, "must be matrices"),
        ({"weight": np.ones((M, N))}, TypeError, "weight must be float32, got float64"),
        ({"weight": np.full((M, N), np.nan, np.float32)}, ValueError, "contains NaN or Inf"),
        ({"momentum": np.ones(2, np.float32)}, ValueError, "momentum must have shape"),
        ({"bypass": (1, 2)}, ValueError, "bypass must hold 5 counts or none"),
        ({"bypass": (1,) * 5, "prox": "smooth"}, ValueError, "bypass must be 0 with prox 'smooth'"),
        ({"prox": "cubic"}, ValueError, "prox must be one of soft"),
        ({"error_scale": np.ones(N, np.float32)}, ValueError, "error_scale and selection must be"),
        ({"selection": np.ones(K, np.float32)}, ValueError, "error_scale and selection must be"),
        ({"code_scale": np.ones(M, np.float32)}, ValueError, "code_scale must have shape"),
        ({"rule_minimum": 2.0}, ValueError, "rule_maximum must be at least 2"),
    ],
)
def test_bad_programs(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    program = plain(programs()["weights"])
    fields = {**program.arrays, **program.options, **changes}
    with pytest.raises(error, match=message):
        runtime.Engine(Program(**fields))


def test_bad_threads(saved: Path) -> None:
    with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
        runtime.load(saved, n_threads=0)


def test_files_without_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LPGNet, "program", lambda self: None)
    path = tmp_path / "model.safetensors"
    save_model(lpg_net(), path)
    wanted = "for LPGNet has layers that the engine does not know; fastunroll.io.load_model"
    with pytest.raises(ValueError, match=f"holds no program for the engine, {wanted}"):
        runtime.load(path)
    save_tensors({"x": torch.zeros(1)}, {}, path)
    with pytest.raises(ValueError, match=r"no program for the engine; fastunroll\.io"):
        runtime.load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        runtime.load(tmp_path / "other.safetensors")


def test_the_program_does_not_disturb_the_model(saved: Path) -> None:
    model = lpg_net()
    loaded = load_model(saved)
    assert loaded.state_dict().keys() == model.state_dict().keys()


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "scipy", "matplotlib"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Blocker())
import numpy as np
import fastunroll
engine = fastunroll.runtime.load(sys.argv[1])
np.save(sys.argv[2], engine(np.load(sys.argv[3])))
assert "torch" not in sys.modules
try:
    fastunroll.prepare
except ImportError as error:
    assert "torch is not here" in str(error)
else:
    raise AssertionError("torch was imported")
"""


def test_inference_needs_no_torch(saved: Path, tmp_path: Path) -> None:
    b = randn(3, M).numpy()
    np.save(tmp_path / "b.npy", b)
    arguments = [saved, tmp_path / "codes.npy", tmp_path / "b.npy"]
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)], check=True)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), runtime.load(saved)(b))


def test_top_level_names() -> None:
    for name in fastunroll.__all__:
        assert getattr(fastunroll, name) is not None
        assert name in dir(fastunroll)
    with pytest.raises(AttributeError, match="has no attribute 'prepared_'"):
        fastunroll.prepared_  # noqa: B018
