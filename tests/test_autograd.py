"""The seam to PyTorch: derivatives, compilation, modes, copies and workers."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
from collections.abc import Callable

import pytest
import torch
from helpers import (
    all_needed,
    assert_close,
    dictionary,
    differentiable,
    make_arguments,
    output_gradients,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import fastunroll
from fastunroll import GradientNormStep, smooth_soft_threshold, soft_threshold
from fastunroll import unrolled_prox_gradient as unroll
from fastunroll.nn import LPGNet
from fastunroll.ops import autograd
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

B, M, N, K = 3, 6, 9, 3
FORMS = ("gram", "factored")
A = dictionary(M, N)
OPS = torch.ops.fastunroll


def randn(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def parameters(*shape: int) -> Tensor:
    return (0.05 + 0.1 * randn(*shape).abs()).requires_grad_()


# --- Derivatives

SMALL = {"batch": 2, "m": 4, "n": 6, "layers": 2}
CASES: dict[str, dict[str, object]] = {
    "layers": {},
    "per atom and sample": {"step": "atom", "threshold": "sample"},
    "full": {"step": "full", "threshold": "full"},
    "rule": {"step": "rule", "objective": True},
    "momentum": {"momentum": True, "initial": True, "previous": True},
    "heavy ball": {"momentum": True, "heavy_ball": True, "initial": True},
    "objective and iterates": {"objective": True, "iterates": True, "initial": True},
    "weight per layer": {"per_layer": True},
    "support selection": {"bypass": 2},
    "nonnegative": {"prox": "nonnegative"},
    "hard": {"prox": "hard"},
    "smooth": {"prox": "smooth", "initial": True},
    "smooth, per atom": {"prox": "smooth", "threshold": "atom", "step": "rule"},
    "firm": {"prox": "firm", "initial": True},
    "scad": {"prox": "scad", "threshold": "full", "initial": True},
    "dense": {"level": 1e-3},
}


def away_from_the_kink(**options: object) -> UnrolledArguments:
    """Small arguments for which no entry of any layer is within 1e-4 of its threshold.

    A jump of the shrinkage shows as a change of the support between thresholds a little smaller
    and a little larger.
    """
    for seed in range(20):
        a = make_arguments(**{**SMALL, **options}, seed=seed)
        low, high = (
            autograd.unrolled(a._replace(threshold=a.threshold + d, with_iterates=True))[2]
            for d in (-1e-4, 1e-4)
        )
        if torch.equal(low != 0, high != 0):
            return a
    raise AssertionError("no suitable problem found")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_gradcheck(case: str, form: str) -> None:
    a = away_from_the_kink(form=form, **CASES[case])
    inputs = [t.clone().requires_grad_() for t in a[:N_DIFFERENTIABLE] if t is not None]

    def run(*tensors: Tensor) -> list[Tensor]:
        results = autograd.unrolled(differentiable(a, tensors))
        return [r for r in results if r is not None and r.requires_grad]

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "case", ["rule", "momentum", "objective and iterates", "smooth", "firm", "scad"]
)
def test_second_derivatives(case: str, form: str) -> None:
    a = away_from_the_kink(form=form, **CASES[case])
    inputs = [t.clone().requires_grad_() for t in a[:N_DIFFERENTIABLE] if t is not None]

    def run(*tensors: Tensor) -> list[Tensor]:
        results = autograd.unrolled(differentiable(a, tensors))
        return [r for r in results if r is not None and r.requires_grad]

    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("shrink", [soft_threshold, smooth_soft_threshold])
def test_second_derivatives_of_a_shrinkage(shrink: Callable[[Tensor, Tensor], Tensor]) -> None:
    u, t = randn(4, N).requires_grad_(), parameters(N)
    assert torch.autograd.gradgradcheck(lambda u, t: shrink(u, t) ** 2, (u, t))


@pytest.mark.parametrize("form", FORMS)
def test_penalty_on_a_gradient_equals_the_reference(form: str) -> None:
    b = randn(B, M)

    def run() -> tuple[Tensor, ...]:
        a, t = A.clone().requires_grad_(), torch.full((K,), 0.1).double().requires_grad_()
        x = unroll(b, a, step=0.2, threshold=t, form=form).codes
        (slope,) = torch.autograd.grad(x.square().sum(), a, create_graph=True)
        return torch.autograd.grad(slope.square().sum() + x.sum(), (a, t))

    ours = run()
    with fastunroll.use_backend("reference"):
        expected = run()
    for x, y in zip(ours, expected, strict=True):
        assert_close(x, y, 1e-9, "gradient")


@pytest.mark.parametrize("form", FORMS)
def test_the_same_tensor_in_several_places(form: str) -> None:
    b, start = randn(B, M), randn(B, N)

    def run() -> tuple[Tensor, ...]:
        a, t = A.clone().requires_grad_(), torch.full((K,), 0.1).double().requires_grad_()
        options = {"step": t, "threshold": t, "momentum": t, "form": form}
        x = unroll(b, a, a, **options, initial=start, previous=start).codes
        return x.detach(), *torch.autograd.grad(x.square().sum(), (a, t))

    ours = run()
    with fastunroll.use_backend("reference"):
        expected = run()
    for x, y in zip(ours, expected, strict=True):
        assert_close(x, y, 1e-9, "result")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.func
def test_torch_func_on_the_reference_backend() -> None:
    b, t = randn(B, M), torch.full((K,), 0.1, dtype=torch.float64)

    def codes(t: Tensor) -> Tensor:
        return unroll(b, A, step=0.2, threshold=t).codes

    expected = torch.autograd.functional.jacobian(codes, t)
    with fastunroll.use_backend("reference"):
        assert_close(torch.func.jacrev(codes)(t), expected, 1e-12, "jacrev")
        assert_close(torch.func.jacfwd(codes)(t), expected, 1e-12, "jacfwd")


def test_inputs_changed_before_the_backward_pass_are_noticed() -> None:
    t, b = parameters(K), randn(B, M)
    x = unroll(b, A.clone().requires_grad_(), step=0.1, threshold=t, form="factored").codes
    b.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


def test_a_prepared_dictionary_is_a_copy() -> None:
    a, b = A.clone(), randn(B, M)
    prepared = fastunroll.prepare(a)
    before = unroll(b, prepared, step=0.1, threshold=0.1, n_layers=K).codes
    a.zero_()
    assert torch.equal(unroll(b, prepared, step=0.1, threshold=0.1, n_layers=K).codes, before)


# --- The registration of the operators


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "case", ["layers", "rule", "momentum", "objective and iterates", "smooth", "firm"]
)
def test_opcheck_of_the_recursion(case: str, form: str, dtype: torch.dtype) -> None:
    a = make_arguments(form=form, dtype=dtype, **SMALL, **CASES[case])
    torch.library.opcheck(OPS.unrolled.default, tuple(a))
    for needs in (all_needed(a), [False] * N_DIFFERENTIABLE):
        incoming = output_gradients(a)
        torch.library.opcheck(OPS.unrolled_backward.default, (*incoming, *a, needs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck_of_multiply(dtype: torch.dtype) -> None:
    matrices = randn(2, M, N).to(dtype)
    rows = randn(M, B).to(dtype).mT
    torch.library.opcheck(OPS.multiply.default, (rows, matrices))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (5, 1)], ids=str)
def test_opcheck_of_shrinkages(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    u, t = randn(5, 7).to(dtype), torch.full(shape, 0.3, dtype=dtype)
    for contiguous in (True, False):
        v = u if contiguous else u.mT.contiguous().mT
        torch.library.opcheck(OPS.shrink.default, (v, t, "soft"))
        torch.library.opcheck(OPS.shrink_backward.default, (v, v, t, "nonnegative"))
        torch.library.opcheck(OPS.shrink.default, (v, t, "smooth"))
        torch.library.opcheck(OPS.shrink_backward.default, (v, v, t, "smooth"))


# --- torch.compile

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")
COMPILERS = ["aot_eager", pytest.param("inductor", marks=needs_compiler)]


def assert_compiled_equals_eager(
    run: Callable[..., Tensor], backend: str, leaves: list[Tensor]
) -> None:
    """Compare a scalar function and its gradients before and after compilation."""
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend=backend)
    expected, ours = run(), compiled()
    assert_close(ours.detach(), expected.detach(), 1e-12, "value")
    for x, y in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        assert_close(x, y, 1e-12, "gradient")


@pytest.mark.parametrize("backend", COMPILERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
@pytest.mark.parametrize("form", FORMS)
def test_compiled_recursion_equals_eager(form: str, backend: str) -> None:
    b, a = randn(B, M).requires_grad_(), A.clone().requires_grad_()
    t, w, c, beta = parameters(K, N), parameters(K), parameters(K), parameters(K)

    def run() -> Tensor:
        step = GradientNormStep(w, c, 0.1, 0.5)
        options = {"step": step, "threshold": t, "momentum": beta, "form": form}
        result = unroll(b, a, **options, objective_weight=0.1, iterates=True)
        return result.codes.sum() + result.objective.sum() + result.iterates.square().sum()

    assert_compiled_equals_eager(run, backend, [b, a, t, w, c, beta])


@pytest.mark.parametrize("backend", COMPILERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
@pytest.mark.parametrize("shrink", [soft_threshold, smooth_soft_threshold])
def test_compiled_shrinkage_equals_eager(
    shrink: Callable[[Tensor, Tensor], Tensor], backend: str
) -> None:
    u, t = randn(B, N).requires_grad_(), parameters(N)
    assert_compiled_equals_eager(lambda: shrink(u, t).square().sum(), backend, [u, t])


@pytest.mark.parametrize("backend", COMPILERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from inside torch.compile
@pytest.mark.parametrize("used_before", [False, True])
def test_compiled_network_equals_eager(used_before: bool, backend: str) -> None:
    b, network = randn(B, M), LPGNet(A, K)
    if used_before:
        network(b)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend=backend)
    leaves = list(network.parameters())
    ours, expected = compiled(b), network(b)
    assert_close(ours.detach(), expected.detach(), 1e-12, "codes")
    for x, y in zip(
        torch.autograd.grad(ours.square().sum(), leaves),
        torch.autograd.grad(expected.square().sum(), leaves),
        strict=True,
    ):
        assert_close(x, y, 1e-12, "gradient")
    state = network.state_dict()
    network.load_state_dict({**state, "dictionary": 0.5 * state["dictionary"]})
    assert_close(compiled(b).detach(), network(b).detach(), 1e-12, "codes of another dictionary")


# --- Modes


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients(mode: Callable[[], torch.autograd.grad_mode.no_grad]) -> None:
    b, network, t = randn(B, M), LPGNet(A, K), parameters(K)
    with mode():
        first = network(b)  # also prepares the dictionary
        free = unroll(b, A, step=0.1, threshold=t).codes
    assert not first.requires_grad
    assert not free.requires_grad
    codes = network(b)
    assert torch.equal(codes, first)
    codes.sum().backward()
    assert network.threshold_raw.grad is not None


@pytest.mark.parametrize("form", FORMS)
def test_autocast_leaves_float32_as_it_is(form: str) -> None:
    b, a = randn(B, M).float(), A.float()

    def run(enabled: bool) -> tuple[Tensor, ...]:
        weight = a.clone().requires_grad_()
        t = torch.full((K,), 0.1, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            result = unroll(b, weight, step=0.2, threshold=t, form=form, objective_weight=0.1)
            codes = LPGNet(a, K)(b)
        leaves = (weight, t)
        found = torch.autograd.grad(result.codes.sum() + result.objective.sum(), leaves)
        return result.codes.detach(), result.objective.detach(), codes.detach(), *found

    for ours, expected in zip(run(True), run(False), strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)


# --- Copies of a network


def through_pickle(network: LPGNet) -> LPGNet:
    copied: LPGNet = pickle.loads(pickle.dumps(network))
    return copied


def through_state_dict(network: LPGNet) -> LPGNet:
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    stream.seek(0)
    copied = LPGNet(A, K)
    copied(randn(B, M))  # what is prepared here must not be used after loading
    copied.load_state_dict(torch.load(stream, weights_only=True))
    return copied


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_state_dict])
def test_copies_of_a_network(through: Callable[[LPGNet], LPGNet]) -> None:
    b, network = randn(B, M), LPGNet(A, K)
    network(b)
    with torch.no_grad():
        network.threshold_raw.copy_(torch.linspace(-5, -4, K))  # small: some codes are not 0
        network.dictionary.mul_(1.1)
    copied = through(network)
    assert network(b).any()
    assert torch.equal(copied(b), network(b))
    with torch.no_grad():
        copied.dictionary.mul_(0.5)
    assert not torch.equal(copied(b), network(b))


class Encoded(Dataset[Tensor]):
    """Codes that a worker computes; workers have one thread each."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return encode(index)


def encode(index: int) -> Tensor:
    return LPGNet(dictionary(32, 64), 6)(randn(100, 32, seed=index)).detach()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(start: str) -> None:
    expected = torch.stack([encode(i) for i in range(4)])  # the kernels have run before the fork
    loader = DataLoader(Encoded(), batch_size=None, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.stack(list(loader)), expected)
