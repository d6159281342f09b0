"""Atomic writes, and model files: round trip and every way in which a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import fastunroll
from fastunroll.io import atomic_write, load_model, save_model, save_tensors
from fastunroll.nn import LPGNet


def make_model(dtype: torch.dtype = torch.float32) -> LPGNet:
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.randn(4, 7, dtype=dtype, generator=generator)
    model = LPGNet(dictionary, n_layers=3, shared_threshold=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=dtype, generator=generator))
    return model


def rewrite(path: Path, tensors: dict[str, Tensor] | None = None, **changes: object) -> None:
    """Change the description, or the tensors, of a model file."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["fastunroll"])
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = json.dumps({**description, **changes})
    save_file(old if tensors is None else tensors, path, metadata={"fastunroll": text})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(make_model(), path)
    return path


def test_atomic_write_replaces_the_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".csv"
            temporary.write_text(text)
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def interrupted_write(path: Path) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted_write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_model_round_trip_is_bitwise(tmp_path: Path, dtype: torch.dtype) -> None:
    model = make_model(dtype)
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert type(loaded) is LPGNet
    assert loaded.config() == model.config()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == dtype
        assert torch.equal(loaded.state_dict()[name], tensor), name
    b = torch.randn(5, 4, dtype=dtype)
    assert torch.equal(loaded(b), model(b))


def test_a_model_loaded_in_inference_mode_can_be_trained(saved: Path) -> None:
    b = torch.ones(2, 4)
    with torch.inference_mode():
        loaded = load_model(saved)
        codes = loaded(b)
    assert torch.equal(codes, make_model()(b))
    loaded(b).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_model_file_says_what_it_is(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        description = json.loads(file.metadata()["fastunroll"])
    assert description["format"] == 1
    assert description["model"] == "LPGNet"
    assert description["version"] == fastunroll.__version__
    assert description["config"] == make_model().config()


def test_save_model_refuses_other_classes_and_suffixes(tmp_path: Path) -> None:
    class Special(LPGNet):
        pass

    with pytest.raises(TypeError, match=r"one of .*LPGNet.*got Special"):
        save_model(Special(torch.eye(3)), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"path must end in \.safetensors, got .*model\.pt"):
        save_model(make_model(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*absent\.safetensors"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_model(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_file(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or no safetensors file"):
        load_model(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"fastunroll": "{"}])
def test_foreign_file(saved: Path, metadata: dict[str, str] | None) -> None:
    save_file({"weight": torch.ones(2)}, saved, metadata=metadata)
    with pytest.raises(ValueError, match="not one written by fastunroll"):
        load_model(saved)


def test_file_that_is_no_model(saved: Path) -> None:
    save_tensors({"a": torch.ones(2)}, {"checkpoint": {}}, saved)
    with pytest.raises(ValueError, match="holds no fastunroll model"):
        load_model(saved)


def test_unknown_format_and_model(saved: Path) -> None:
    rewrite(saved, format=2)
    with pytest.raises(ValueError, match=r"has format 2, but this version .* reads format 1"):
        load_model(saved)
    rewrite(saved, format=1, model="Transformer")
    with pytest.raises(ValueError, match=r"unknown model 'Transformer'; known: .*LPGNet"):
        load_model(saved)


def test_configuration_that_does_not_fit(saved: Path) -> None:
    config = make_model().config()
    rewrite(saved, config={**config, "n_layers": 4})
    with pytest.raises(ValueError, match=r"LPGNet needs \w+ of shape \(4,\) .* got \(3,\)"):
        load_model(saved)
    rewrite(saved, config={**config, "n_layers": -1})
    with pytest.raises(ValueError, match="not the configuration of a LPGNet: n_layers must be"):
        load_model(saved)
    rewrite(saved, config={})
    with pytest.raises(ValueError, match=r"LPGNet needs '.*', which the file lacks"):
        load_model(saved)


def test_tensors_that_do_not_fit(saved: Path) -> None:
    state = make_model().state_dict()
    rewrite(saved, {name: t for name, t in state.items() if name != "step_bias"})
    with pytest.raises(ValueError, match=r"lacks \['step_bias'\]"):
        load_model(saved)
    rewrite(saved, {**state, "extra": torch.ones(1)})
    with pytest.raises(ValueError, match=r"unknown \['extra'\]"):
        load_model(saved)
    rewrite(saved, {**state, "step_bias": state["step_bias"].double()})
    with pytest.raises(ValueError, match=r"float32, got \(3,\) and torch.float64"):
        load_model(saved)
