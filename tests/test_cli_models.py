"""The commands ``encode`` and ``evaluate`` with every kind of network that a file can hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import dictionary
from test_cli import fails, succeeds
from torch import Tensor

from fastunroll.data import SparseProblem
from fastunroll.data.seeds import stream_seed
from fastunroll.dictionary import PUDLE, ConvolutionalPUDLE, CSCNet
from fastunroll.io import save_model
from fastunroll.metrics import nmse_db
from fastunroll.nn import (
    LISTACP,
    ADMMCSNet,
    EquilibriumNetwork,
    LPGNet,
    RobustALISTA,
    SafeguardedNetwork,
    UnrolledNetwork,
)

M, N = 9, 20
OF_VECTORS: list[Callable[[Tensor], UnrolledNetwork]] = [
    lambda a: PUDLE(a, 4),
    lambda a: PUDLE(a, 4, prox="nonnegative", learn_lam=True),
    lambda a: LISTACP(a, 3),
    lambda a: RobustALISTA(a, 3),
    lambda a: ADMMCSNet(a, 3),
    lambda a: EquilibriumNetwork(a),
    lambda a: SafeguardedNetwork(LISTACP(a, 3)),
]
FILTERS = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", OF_VECTORS)
def test_networks_of_vectors_encode_and_are_evaluated(make, tmp_path) -> None:
    network = make(dictionary(M, N, torch.float32))
    save_model(network, tmp_path / "model.safetensors")
    rows = np.random.default_rng(0).normal(size=(7, M)).astype(np.float32)
    np.save(tmp_path / "b.npy", rows)
    succeeds("encode", tmp_path / "model.safetensors", tmp_path / "b.npy", tmp_path / "x.npy")
    with torch.no_grad():
        expected = network(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, atol=1e-5)
    text = succeeds("evaluate", tmp_path / "model.safetensors", "--n-samples", 20)
    assert "NMSE (dB)" in text


def test_evaluate_agrees_with_the_metrics(tmp_path) -> None:
    network = LPGNet(dictionary(16, 40, torch.float32), n_layers=3)
    save_model(network, tmp_path / "model.safetensors")
    text = succeeds("evaluate", tmp_path / "model.safetensors", "--n-samples", 50, "--density", 0.3)
    generator = torch.Generator().manual_seed(stream_seed(0, "test"))
    batch = SparseProblem(network.dictionary, density=0.3).sample(50, generator)
    expected = nmse_db(network(batch.measurements), batch.codes)
    nmse = next(line for line in text.splitlines() if "NMSE (dB)" in line)
    assert float(nmse.split()[-2]) == pytest.approx(expected, rel=1e-3)


def test_evaluate_on_patches_needs_a_square(tmp_path) -> None:
    save_model(LPGNet(torch.eye(15), n_layers=1), tmp_path / "m.safetensors")
    message = fails(1, "evaluate", tmp_path / "m.safetensors", "--task", "patches")
    assert "no square patch" in message


@pytest.mark.parametrize("network", [ConvolutionalPUDLE(FILTERS, 2), CSCNet(FILTERS, stride=4)])
def test_networks_of_images_say_what_they_are_for(network: UnrolledNetwork, tmp_path) -> None:
    save_model(network, tmp_path / "model.safetensors")
    np.save(tmp_path / "b.npy", np.zeros((2, M)))
    model, name = tmp_path / "model.safetensors", type(network).__name__
    for message in (
        fails(1, "encode", model, tmp_path / "b.npy", tmp_path / "x.npy"),
        fails(1, "evaluate", model),
    ):
        assert f"a {name}, takes images" in message
    assert not (tmp_path / "x.npy").exists()
