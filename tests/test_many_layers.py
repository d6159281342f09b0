"""Many layers with few atoms: the layers at the end on their support, samples one by one, G."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers import (
    all_needed,
    assert_close,
    assert_same_bits,
    dictionary,
    make_arguments,
    output_gradients,
)
from torch import Tensor

from fastunroll import unrolled_prox_gradient as unroll
from fastunroll._native import Tape
from fastunroll.ops import cpu, reference
from fastunroll.ops.arguments import N_DIFFERENTIABLE, UnrolledArguments

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
KINDS = {
    "plain": {},
    "per atom and sample": {"step": "atom", "threshold": "sample"},
    "all iterates": {"iterates": True, "initial": True},
    "support selection": {"bypass": 3},
    "nonnegative": {"prox": "nonnegative"},
    "firm": {"prox": "firm", "threshold": "atom"},
    "smooth": {"prox": "smooth"},
}


@pytest.fixture(autouse=True)
def _threads_are_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def taped_gradients(a: UnrolledArguments) -> dict[str, Tensor]:
    tape = Tape()
    cpu.run_unrolled(a, tape)
    found = cpu.run_unrolled_backward(output_gradients(a), a, all_needed(a), tape)
    return dict(zip(a._fields[:N_DIFFERENTIABLE], found, strict=True))


def expected_gradients(a: UnrolledArguments) -> dict[str, Tensor]:
    found = reference.unrolled_backward(*output_gradients(a), a, all_needed(a))
    return dict(zip(a._fields[:N_DIFFERENTIABLE], found, strict=True))


@pytest.mark.parametrize("level", [0.05, 0.3, 5.0], ids=["dense", "sparse", "all zero"])
@pytest.mark.parametrize("size", [(5, 40, 60), (67, 21, 133), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_many_layers_agree_with_the_reference(
    kind: str, size: tuple[int, int, int], level: float
) -> None:
    batch, m, n = size
    a = make_arguments(
        **{"form": "factored", "tied": True, "layers": 30, "level": level, **KINDS[kind]},
        batch=batch,
        m=m,
        n=n,
    )
    expected = expected_gradients(a)
    for name, ours in taped_gradients(a).items():
        assert_close(ours, expected[name], 1e-9, f"gradient of {name}")


def test_gradients_of_many_layers_where_the_dictionary_exceeds_the_cache() -> None:
    options = {"form": "factored", "tied": True, "batch": 70, "m": 410, "n": 650, "layers": 8}
    a = make_arguments(**options, level=0.4)
    expected = expected_gradients(a)
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        runs.append(taped_gradients(a))
    for name, ours in runs[0].items():
        assert_close(ours, expected[name], 1e-9, f"gradient of {name}")
        assert_same_bits(runs[1][name], ours, f"gradient of {name} on two threads")


def test_gradient_of_the_mixed_form_is_that_of_the_factored_one() -> None:
    found = []
    for form in ("mixed", "factored"):
        a = dictionary(41, 90).requires_grad_()
        b = 2 * dictionary(41, 9, seed=1).mT
        b.requires_grad_()
        codes = unroll(b, a, step=0.2, threshold=0.1, n_layers=25, form=form).codes
        codes.square().sum().backward()
        found.append((a.grad, b.grad))
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected, 1e-9, "gradient")


@DTYPES
def test_samples_that_go_one_by_one_give_the_same_bits(dtype: torch.dtype) -> None:
    # The objective keeps the samples of a tile together.
    a = dictionary(60, 800, dtype)
    b = torch.randn(70, 60, generator=torch.Generator().manual_seed(2)).to(dtype)
    options = {"step": 0.05, "threshold": 0.05, "n_layers": 40, "form": "gram", "iterates": True}
    alone = unroll(b, a, **options)
    together = unroll(b, a, objective_weight=0.1, **options)
    assert 0 < int((alone.codes[0] != 0).sum()) < 80
    assert_same_bits(alone.iterates, together.iterates, "iterates")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert_same_bits(
            unroll(b[3:40], a, **options).codes, alone.codes[3:40], "part of the batch"
        )


@DTYPES
@pytest.mark.parametrize("size", [(1, 1), (7, 127), (33, 128), (20, 129), (130, 301)], ids=str)
def test_gram_matrix_is_symmetric_and_right(size: tuple[int, int], dtype: torch.dtype) -> None:
    a = dictionary(*size, dtype)
    grams = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        grams.append(cpu.gram(a))
    assert_same_bits(grams[0], grams[1], "gram on two threads")
    assert_same_bits(grams[0], grams[0].mT.contiguous(), "transposed gram")
    exact = a.double().mT @ a.double()
    assert_close(grams[0], exact.to(dtype), 1e-6 if dtype == torch.float32 else 1e-14, "gram")


@pytest.mark.parametrize("number", [float("nan"), 1e200])
def test_gram_matrix_that_is_not_finite_is_refused(number: float) -> None:
    a = dictionary(5, 8)
    a[2, 3] = number
    with pytest.raises(ValueError, match="dictionary"):
        unroll(torch.ones(2, 5, dtype=a.dtype), a, step=0.1, threshold=0.1, n_layers=2, form="gram")
