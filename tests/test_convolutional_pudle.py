"""Convolutional PUDLE and CSCNet: the same as dense ones, memory, bad input and files."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convolutional_cases import STEP, random, unit
from helpers import assert_close, assert_same_bits
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv_transpose1d, conv_transpose2d

import fastunroll as fu
from fastunroll.dictionary import PUDLE, ConvolutionalPUDLE, CSCNet
from fastunroll.dictionary.convolution import Convolution
from fastunroll.dictionary.encoder import unroll_convolutional
from fastunroll.io import load_model, save_model

CASES = [  # filters (n_filters, channels, *kernel), stride, size of a signal
    ((5, 1, 4), 1, (9,)),
    ((4, 2, 5), 3, (14,)),
    ((6, 1, 3, 3), 1, (6, 7)),
    ((5, 1, 9, 9), 4, (17, 13)),
    ((4, 3, 4, 5), 2, (8, 9)),
    ((4, 2, 3, 4), 3, (9, 10)),
]


def explicit(filters: Tensor, stride: int, size: tuple[int, ...]) -> Tensor:
    """The matrix of all shifts (pixels, n_filters * places), pixel by pixel; differentiable."""
    _, channels, *kernel = filters.shape
    places = [range(0, n - k + 1, stride) for n, k in zip(size, kernel, strict=True)]
    columns = []
    for atom in filters:
        for place in product(*places):
            column = torch.zeros(channels, *size, dtype=filters.dtype)
            window = tuple(slice(p, p + k) for p, k in zip(place, kernel, strict=True))
            column[(slice(None), *window)] = atom
            columns.append(column.flatten())
    return torch.stack(columns, dim=1)


def gradient_of(model: PUDLE, x: Tensor, target: Tensor | None = None) -> list[Tensor]:
    model.zero_grad()
    model.loss(x, target).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("gradient", ["dec", "ae-lasso", "ae-ls"])
@pytest.mark.parametrize(("shape", "stride", "size"), CASES, ids=str)
def test_it_is_the_dense_one_for_the_matrix_of_all_shifts(
    shape: tuple[int, ...], stride: int, size: tuple[int, ...], gradient: str
) -> None:
    filters, x = unit(*shape), random(3, shape[1], *size, seed=1)
    clean = random(3, shape[1], *size, seed=2)
    options: dict[str, Any] = {"lam": 0.4, "step": STEP, "gradient": gradient, "layer_decay": 0.9}
    options |= {} if gradient == "dec" else {"learn_step": True, "learn_lam": True}
    model = ConvolutionalPUDLE(filters, 7, stride=stride, **options)
    leaf = model.filters.detach().clone().requires_grad_()
    matrix = explicit(leaf, stride, size)
    dense = PUDLE(matrix.detach(), 7, **options)
    codes, expected = model(x), dense(x.flatten(1))
    assert 0.05 < float((expected != 0).double().mean()) < 0.95
    assert_close(codes.flatten(1).detach(), expected.detach(), 1e-9, "codes")
    rebuilt = model.decode(codes).flatten(1).detach()
    assert_close(rebuilt, dense.decode(expected).detach(), 1e-9, "decoder")
    if gradient != "ae-lasso":
        energy = 0.5 * (clean.flatten(1) - rebuilt).square().sum(dim=1).mean()
        assert model.loss(x, clean).item() == pytest.approx(float(energy), rel=1e-12)
    for target in (None, clean):
        found = gradient_of(model, x, target)
        theirs = gradient_of(dense, x.flatten(1), None if target is None else target.flatten(1))
        (of_filters,) = torch.autograd.grad(matrix, leaf, theirs[0], retain_graph=True)
        assert len(found) == len(theirs) == (1 if gradient == "dec" else 3)
        assert_close(found[0].mT.reshape(shape), of_filters, 1e-9, "filters")
        for ours, other in zip(found[1:], theirs[1:], strict=True):
            assert_close(ours, other, 1e-9, "step and lambda")


@pytest.mark.parametrize("prox", ["soft", "nonnegative", "hard"])
@pytest.mark.parametrize("n_layers", [1, 2, 15, 17])
def test_every_shrinkage_and_number_of_layers(prox: str, n_layers: int) -> None:
    x = random(2, 1, 13, 13, seed=3)
    options: dict[str, Any] = {"lam": 0.3, "step": STEP, "prox": prox}
    model = ConvolutionalPUDLE(unit(6, 1, 5, 5), n_layers, stride=4, **options)
    leaf = model.filters.detach().clone().requires_grad_()
    matrix = explicit(leaf, 4, (13, 13))
    dense = PUDLE(matrix.detach(), n_layers, **options)
    assert_close(model(x).flatten(1).detach(), dense(x.flatten(1)).detach(), 1e-9, "codes")
    (of_filters,) = torch.autograd.grad(matrix, leaf, gradient_of(dense, x.flatten(1))[0])
    (found,) = gradient_of(model, x)
    assert_close(found.mT.reshape(6, 1, 5, 5), of_filters, 1e-9, "filters")
    with fu.use_backend("reference"):
        (reference,) = gradient_of(model, x)
    assert_close(found, reference, 1e-9, "plain autograd")


def test_the_hard_threshold_carries_no_gradient_to_the_thresholds() -> None:
    filters, thresholds = unit(4, 1, 3).flatten(1), torch.full((3, 1), 0.1, dtype=torch.float64)
    found = unroll_convolutional(
        Convolution((1, 3), 2),
        random(2, 1, 9),
        STEP * filters.requires_grad_(),
        filters,
        thresholds.requires_grad_(),
        prox="hard",
    )
    found.codes.sum().backward()
    assert thresholds.grad is not None
    assert not thresholds.grad.any()
    assert filters.grad is not None
    assert bool(filters.grad.any())


@pytest.mark.parametrize("size", [(9,), (7, 9)])
def test_gradcheck_of_all_inputs(size: tuple[int, ...]) -> None:
    kernel = (3,) * len(size)
    network = CSCNet(unit(3, 2, *kernel), 5, stride=2, threshold=0.05).double()
    names = [name for name, _ in network.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        tensors = dict(zip(names, parameters, strict=True))
        codes = torch.func.functional_call(network, tensors, (x,))
        return codes * weight

    x = random(2, 2, *size, seed=5).requires_grad_()
    weight = random(*network(x).shape, seed=6)
    scaled = [p.detach() * (1 + 0.1 * k) for k, p in enumerate(network.parameters())]
    scaled[names.index("thresholds")] += 0.03 * torch.arange(3)
    assert torch.autograd.gradcheck(run, (x, *(p.requires_grad_() for p in scaled)))


def test_objective_and_iterates_are_those_of_the_dense_one() -> None:
    model = ConvolutionalPUDLE(unit(4, 1, 3, 3), 6, stride=2, lam=0.3, step=STEP)
    dense = PUDLE(explicit(model.filters.detach(), 2, (7, 5)), 6, lam=0.3, step=STEP)
    x = random(2, 1, 7, 5)
    found = model.unroll(x, objective_weight=0.3, iterates=True, n_layers=4)
    expected = dense.unroll(x.flatten(1), objective_weight=0.3, iterates=True, n_layers=4)
    assert found.objective is not None
    assert expected.objective is not None
    assert found.iterates is not None
    assert expected.iterates is not None
    assert_close(found.objective.detach(), expected.objective.detach(), 1e-12, "objective")
    assert_close(found.iterates.flatten(2).detach(), expected.iterates.detach(), 1e-12, "iterates")
    assert_same_bits(found.codes.detach(), model.unroll(x, n_layers=4).codes.detach(), "codes")
    (ours,) = torch.autograd.grad(found.objective.sum(), model.dictionary)
    (theirs,) = torch.autograd.grad(expected.objective.sum(), dense.dictionary)
    leaf = model.filters.detach().clone().requires_grad_()
    (theirs,) = torch.autograd.grad(explicit(leaf, 2, (7, 5)), leaf, theirs)
    assert_close(ours.mT.reshape_as(theirs), theirs, 1e-9, "gradient of the objective")


@pytest.mark.parametrize(("shape", "stride", "size"), CASES, ids=str)
def test_the_step_bounds_the_norm_closely(
    shape: tuple[int, ...], stride: int, size: tuple[int, ...]
) -> None:
    filters = unit(*shape)
    large = tuple(k + stride * 10 for k in shape[2:])
    convolution = Convolution(shape[1:], stride)
    norm = float(torch.linalg.matrix_norm(explicit(filters, stride, large), 2)) ** 2
    bound = convolution.lipschitz_constant(filters.flatten(1))
    assert norm <= bound * (1 + 1e-12)
    assert bound < 1.15 * norm
    model = ConvolutionalPUDLE(filters, 2, stride=stride)
    assert model.step.item() == pytest.approx(1 / bound)
    model.dictionary.data /= 2
    model.project()
    assert model.step.item() == pytest.approx(4 / bound)


@pytest.mark.parametrize("constraint", ["projected", "normalised"])
def test_filters_meet_their_constraint(constraint: str) -> None:
    filters = random(4, 2, 3, 3)
    filters[0] *= 0.01 / filters[0].norm()
    model = ConvolutionalPUDLE(filters, 2, step=STEP, constraint=constraint)
    norms = model.filters.flatten(1).norm(dim=1)
    expected = torch.ones(4, dtype=torch.float64)
    expected[0] = 0.01 if constraint == "projected" else 1.0
    assert_close(norms.detach(), expected, 1e-12, "norms")


def eager_loss(x: Tensor, filters: Tensor, n_layers: int, stride: int, lam: float) -> Tensor:
    """Plain PyTorch, with convolutions and autograd."""
    back, forth = (conv1d, conv_transpose1d) if x.dim() == 3 else (conv2d, conv_transpose2d)
    z = torch.zeros_like(back(x, filters, stride=stride))
    for _ in range(n_layers):
        r = forth(z, filters, stride=stride) - x
        z = torch.nn.functional.softshrink(z - STEP * back(r, filters, stride=stride), STEP * lam)
    return 0.5 * (forth(z, filters, stride=stride) - x).square().sum() / len(x)


def saved_bytes(loss: Callable[[], Tensor]) -> tuple[int, Tensor]:
    """Bytes of all memory that is kept for the backward pass."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    return sum(seen.values()), value


@pytest.mark.parametrize(("n_layers", "factor"), [(15, 5), (100, 15)])
def test_little_memory_is_kept_for_the_backward_pass(n_layers: int, factor: int) -> None:
    x = random(2, 1, 33, 33, dtype=torch.float32)
    model = ConvolutionalPUDLE(unit(16, 1, 9, 9).float(), n_layers, stride=4, lam=0.3, step=STEP)
    filters = model.filters.detach().clone().requires_grad_()
    ours, loss = saved_bytes(lambda: model.loss(x))
    eager, expected = saved_bytes(lambda: eager_loss(x, filters, n_layers, 4, 0.3))
    assert ours * factor < eager
    loss.backward()
    expected.backward()
    assert model.dictionary.grad is not None
    assert filters.grad is not None
    found = model.dictionary.grad.mT.reshape_as(filters)
    assert_close(found, filters.grad, 1e-4, "gradient in float32")


def test_cscnet_is_its_formula() -> None:
    network = CSCNet(unit(5, 1, 5, 5), 4, stride=3, threshold=0.1)
    with torch.no_grad():
        for seed, parameter in enumerate(network.parameters()):
            parameter += 0.05 * random(*parameter.shape, seed=seed).abs()
    x, clean = random(2, 1, 11, 14, seed=8), random(2, 1, 11, 14, seed=9)
    b, c, d = (
        explicit(f.detach(), 3, (11, 14)).numpy()
        for f in (network.analysis, network.synthesis, network.decoder)
    )
    theta = network.thresholds.detach().numpy().repeat(12)
    z = np.zeros((2, 60))
    for _ in range(4):
        u = z - (z @ c.T - x.flatten(1).numpy()) @ b
        z = np.sign(u) * np.maximum(np.abs(u) - theta, 0)
    assert 0.1 < (z != 0).mean() < 0.9
    assert_close(network(x).flatten(1).detach(), torch.from_numpy(z), 1e-12, "codes")
    loss = 0.5 * np.square(z @ d.T - clean.flatten(1).numpy()).sum(axis=1).mean()
    assert network.loss(x, clean).item() == pytest.approx(loss, rel=1e-12)
    with torch.no_grad():
        network.thresholds[1] = -1.0
    network.project()
    assert float(network.thresholds.detach().min()) == 0.0


def test_nan_stays_in_its_sample() -> None:
    model = ConvolutionalPUDLE(unit(6, 1, 4, 4), 5, stride=2, lam=0.1)
    x = random(3, 1, 8, 8)
    alone = model(x).detach()
    x[1, 0, 3, 3] = torch.nan
    codes = model(x).detach()
    assert bool(codes[1].isnan().any())
    assert_close(codes[[0, 2]], alone[[0, 2]], 1e-12, "the other samples")


GRAY = ConvolutionalPUDLE(unit(3, 1, 4, 4), 2, stride=2, step=STEP)
LINE = ConvolutionalPUDLE(unit(3, 1, 4), 2, stride=2, step=STEP)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GRAY(random(1, 1, 3, 8)), ValueError, r"b is smaller than a filter \(4, 4\)"),
        (lambda: GRAY(random(1, 1, 8, 9)), ValueError, r"4 \+ 2 i pixels .* 8 or 10 and not 9"),
        (lambda: GRAY(random(1, 2, 8, 8)), ValueError, "b must have 1 channel"),
        (lambda: GRAY(random(8, 8)), ValueError, "b must have 4 axes"),
        (lambda: GRAY(random(1, 1, 8, 8).float()), TypeError, "b has dtype torch.float32"),
        (lambda: LINE(random(1, 1, 8, 8)), ValueError, "b must have 3 axes"),
        (lambda: GRAY.loss(random(1, 1, 8, 8), random(1, 1, 6, 8)), ValueError, "target must"),
        (lambda: GRAY.unroll(random(1, 1, 8, 8), n_layers=3), ValueError, "n_layers must be at"),
        (lambda: ConvolutionalPUDLE(random(3, 1, 4, 4), stride=5), ValueError, "stride must be"),
        (lambda: ConvolutionalPUDLE(random(3, 4)), ValueError, "filters must have 3 or 4 axes"),
        (lambda: ConvolutionalPUDLE(random(3, 1, 4), prox="scad"), ValueError, "prox must be"),
        (lambda: CSCNet(torch.zeros(3, 1, 8)), ValueError, "filters must be finite and not all"),
    ],
)
def test_bad_input_is_named(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "model",
    [
        ConvolutionalPUDLE(unit(4, 2, 3, 5), 3, stride=2, lam=0.3, layer_decay=0.9),
        ConvolutionalPUDLE(unit(4, 1, 5), 3, stride=2, step=0.1, prox="hard", learn_step=True),
        CSCNet(unit(4, 1, 5, 5).float(), 3, stride=4, threshold=0.2),
    ],
    ids=["two axes", "one axis", "CSCNet"],
)
def test_files_give_the_same_model_back(model: ConvolutionalPUDLE | CSCNet, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.parameters()).mul_(0.9)
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert isinstance(loaded, type(model))
    assert loaded.config() == model.config()
    for name, tensor in model.state_dict().items():
        assert_same_bits(loaded.state_dict()[name], tensor, name)
    channels, *kernel = model.convolution.filter_shape
    size = [k + 2 * model.convolution.stride for k in kernel]
    x = random(2, channels, *size).to(next(model.parameters()).dtype)
    assert_same_bits(loaded(x).detach(), model(x).detach(), "codes")
