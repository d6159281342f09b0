"""The engine and every network: which have a program, and whether it computes their codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, dictionary
from torch import Tensor

from fastunroll import runtime
from fastunroll.dictionary import PUDLE, ConvolutionalPUDLE, CSCNet
from fastunroll.io import load_model, save_model
from fastunroll.nn import (
    ALISTA,
    MODELS,
    AdaLISTA,
    HyperLISTA,
    RobustALISTA,
    SafeguardedNetwork,
    SmoothLISTA,
    SupportSelection,
    UnrolledNetwork,
)
from fastunroll.nn.dense import stack_complex

M, N, K = 30, 50, 5

SAME_BITS: dict[str, dict[str, Any]] = {
    "ALISTA": {"support_selection": SupportSelection()},
    "LIHT": {},
    "LIHTCP": {},
    "LISTA": {"support_selection": SupportSelection()},
    "LISTACP": {"prox": "nonnegative"},
    "LPGNet": {"step_range": (0.01, 0.3)},
    "PUDLE": {"layer_decay": 0.9, "accelerated": True},
    "RobustALISTA": {},
    "StepLISTA": {},
    "TiLISTA": {},
}
"""Networks whose layers the engine and PyTorch run on the same kernels, and options."""

UP_TO_ROUNDING: dict[str, dict[str, Any]] = {
    "AdaLISTA": {},
    "HyperLISTA": {"threshold_factor": 0.05, "symmetric": True},
    "SmoothLISTA": {"learn_threshold": True},
}

NO_PROGRAM = {
    "ADMMCSNet": "has the layers of ADMM",
    "CSCNet": "has a convolutional dictionary",
    "ConvolutionalPUDLE": "has a convolutional dictionary",
    "EquilibriumNetwork": "iterates until a sample is done",
    "GLISTA": "has gates between its layers",
    "LAMP": "keeps the residual of the layer before",
    "NAALISTA": "asks an LSTM",
    "SafeguardedNetwork": "looks at the outcome of every layer",
    "TISTA": "has a shrinkage of its own",
}
"""Networks that the engine cannot run, and what they do."""

ALL = {**MODELS, **{model.__name__: model for model in (PUDLE, ConvolutionalPUDLE, CSCNet)}}

each_type = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def randn(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def make(name: str, dtype: torch.dtype) -> UnrolledNetwork:
    """A network with every learned number moved away from its start."""
    options = {**SAME_BITS, **UP_TO_ROUNDING}[name]
    model = ALL[name](dictionary(M, N, dtype), n_layers=K, **options)  # type: ignore[call-arg]
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.mul_(1 + 0.05 * randn(*parameter.shape, dtype=dtype, seed=index))
    return model.eval()


def through_the_engine(model: UnrolledNetwork, b: Tensor, path: Path) -> Tensor:
    save_model(model, path / "model.safetensors")
    return torch.from_numpy(runtime.load(path / "model.safetensors")(b.numpy()))


def test_every_network_is_told_about() -> None:
    assert sorted([*SAME_BITS, *UP_TO_ROUNDING, *NO_PROGRAM]) == sorted(ALL)


@each_type
@pytest.mark.parametrize("name", SAME_BITS)
def test_codes_of_the_engine_are_those_of_the_network(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    model = make(name, dtype)
    b = 3 * randn(9, M, dtype=dtype)
    found = through_the_engine(model, b, tmp_path)
    again = load_model(tmp_path / "model.safetensors").eval()
    with torch.inference_mode():
        expected, loaded = model(b), again(b)
    assert torch.equal(found, expected)
    assert torch.equal(loaded, expected)
    assert 0 < float((found != 0).double().mean()) < 1


@pytest.mark.parametrize("name", UP_TO_ROUNDING)
def test_codes_of_the_engine_up_to_rounding(tmp_path: Path, name: str) -> None:
    model = make(name, torch.float64)
    b = 3 * randn(9, M, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(b)
    assert_close(through_the_engine(model, b, tmp_path), expected, 1e-10, "codes")
    assert float(expected.abs().max()) > 0.1


@pytest.mark.parametrize("prox", ["soft", "hard", "nonnegative"])
@pytest.mark.parametrize("selection", [None, SupportSelection(5, 20)])
def test_ada_lista_with_options(
    tmp_path: Path, prox: str, selection: SupportSelection | None
) -> None:
    a = dictionary(M, N)
    model = AdaLISTA(a, K, lam=0.2, prox=prox, support_selection=selection)
    with torch.no_grad():
        model.measurement_weight += 0.1 * randn(M, M, dtype=a.dtype, seed=1)
        model.residual_weight += 0.1 * randn(M, M, dtype=a.dtype, seed=2)
    b = randn(9, M, dtype=a.dtype)
    with torch.inference_mode():
        expected = model(b)
    assert_close(through_the_engine(model, b, tmp_path), expected, 1e-10, "codes")
    assert 0 < float((expected != 0).double().mean()) < 1


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("factors", [(0.05, 0.01, 0.3), (0.2, 0.0, 0.0), (0.02, 0.02, 5.0)])
def test_rule_of_hyperlista(
    tmp_path: Path, factors: tuple[float, float, float], symmetric: bool
) -> None:
    a = dictionary(40, 100)
    threshold, momentum, selection = factors
    model = HyperLISTA(
        a,
        12,
        symmetric=symmetric,
        threshold_factor=threshold,
        momentum_factor=momentum,
        selection_factor=selection,
    )
    codes = randn(70, 100, dtype=a.dtype) * (randn(70, 100, dtype=a.dtype, seed=1) > 1.6)
    codes[3] = 0  # its errors are 0 in all layers
    b = codes @ a.mT
    with torch.inference_mode():
        expected = model(b)
    found = through_the_engine(model, b, tmp_path)
    assert_close(found, expected, 1e-9, "codes")
    assert torch.equal(found != 0, expected != 0)
    assert not found[3].any()
    if factors[0] == 0.05:
        error = (found - codes).square().sum() / codes.square().sum()
        assert float(error) < 0.2


def test_rule_of_hyperlista_for_any_batch_and_threads(tmp_path: Path) -> None:
    model = HyperLISTA(dictionary(60, 110, torch.float32), 8, threshold_factor=0.03)
    save_model(model, tmp_path / "model.safetensors")
    one = runtime.load(tmp_path / "model.safetensors")
    three = runtime.load(tmp_path / "model.safetensors", n_threads=3)
    b = randn(300, 60, dtype=torch.float32).numpy()
    b[7, 0] = np.nan
    expected = one(b)
    assert np.array_equal(three(b), expected, equal_nan=True)
    assert np.array_equal(np.stack([one(row) for row in b]), expected, equal_nan=True)
    out = np.empty_like(expected)
    assert one(b, out=out) is out
    assert np.array_equal(out, expected, equal_nan=True)
    assert np.isnan(expected[7]).all()
    assert np.isfinite(np.delete(expected, 7, 0)).all()


def test_networks_without_a_program_say_why(tmp_path: Path) -> None:
    a = dictionary(M, N, torch.float32)
    filters = randn(4, 1, 3, 3, dtype=torch.float32)
    models: dict[str, UnrolledNetwork] = {
        "SafeguardedNetwork": SafeguardedNetwork(ALISTA(a, K), lam=0.1),
        "ConvolutionalPUDLE": ConvolutionalPUDLE(filters, K, stride=2),
        "CSCNet": CSCNet(filters, K, stride=2),
    }
    for name, reason in NO_PROGRAM.items():
        model = models[name] if name in models else ALL[name](a, K)  # type: ignore[call-arg]
        save_model(model, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=f"no program for the engine, for {name} {reason}"):
            runtime.load(tmp_path / "model.safetensors")


def test_a_dictionary_per_sample_has_no_program() -> None:
    a = dictionary(M, N, torch.float32)
    network = RobustALISTA(a, K).with_dictionary(a.expand(2, M, N))
    assert network.program() is None
    assert network.no_program == "has one dictionary per sample"


def test_complex_measurements_are_stacked(tmp_path: Path) -> None:
    real, imaginary = dictionary(8, 20), dictionary(8, 20, seed=1)
    model = SmoothLISTA(torch.complex(real, imaginary), K)
    b = torch.complex(randn(3, 8, dtype=real.dtype), randn(3, 8, dtype=real.dtype, seed=1))
    with torch.inference_mode():
        expected = model(b)
    found = through_the_engine(model, stack_complex(b, -1), tmp_path)
    assert_close(found, expected, 1e-10, "codes")
