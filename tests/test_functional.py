"""The public functions: shapes, layouts, special values, and errors that name the argument."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import assert_close, dictionary
from torch import Tensor

import fastunroll
from fastunroll import GradientNormStep, prox_gradient_step, soft_threshold, unrolled_gram
from fastunroll import unrolled_prox_gradient as unroll
from fastunroll.backend import forced_backend

B, M, N, K = 5, 12, 20, 3
FORMS = ("gram", "factored")
NAN = float("nan")
A = dictionary(M, N)


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def positive(*shape: int) -> Tensor:
    return 0.1 + 0.1 * randn(*shape).abs()


def shrink(u: Tensor, threshold: Tensor | float) -> Tensor:
    return u.sign() * (u.abs() - threshold).clamp(min=0)


def loop(b: Tensor, step: Tensor, threshold: Tensor, weight: Tensor = A) -> list[Tensor]:
    """The iterates by the formula; step and threshold are (K, 1 or B, 1 or n)."""
    x = [b.new_zeros(len(b), A.shape[1])]
    for s, t in zip(step, threshold, strict=True):
        x.append(shrink(x[-1] - s * ((x[-1] @ A.mT - b) @ weight), t))
    return x


# --- The bare shrinkage

THRESHOLDS: dict[str, Callable[[int, int], Tensor | float]] = {
    "number": lambda rows, n: 0.3,
    "scalar": lambda rows, n: torch.tensor(0.3, dtype=torch.float64),
    "one element": lambda rows, n: torch.full((1,), 0.3, dtype=torch.float64),
    "per atom": lambda rows, n: positive(n),
    "per atom, 2-D": lambda rows, n: positive(1, n),
    "per sample": lambda rows, n: positive(rows, 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (kind, shape)
        for kind in THRESHOLDS
        for shape in ((7,), (1, 1), (3, 8), (70, 133))
        if len(shape) == 2 or kind not in ("per sample", "per atom, 2-D")  # they need a batch
    ],
    ids=str,
)
def test_soft_threshold_is_the_formula(
    kind: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    u = randn(*shape, dtype=dtype)
    threshold = THRESHOLDS[kind](shape[0], shape[-1])
    threshold = threshold.to(dtype) if isinstance(threshold, Tensor) else threshold
    assert torch.equal(soft_threshold(u, threshold), shrink(u, threshold))
    expected = (u - threshold).clamp(min=0)
    assert torch.equal(soft_threshold(u, threshold, nonnegative=True), expected)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in THRESHOLDS if kind != "number"])
def test_soft_threshold_gradcheck(kind: str, nonnegative: bool) -> None:
    u, threshold = randn(6, 19), THRESHOLDS[kind](6, 19)
    near_kink = (u.abs() - threshold).abs() < 1e-3
    u = (u + 0.01 * near_kink).requires_grad_()
    assert isinstance(threshold, Tensor)
    inputs = (u, threshold.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda *a: soft_threshold(*a, nonnegative=nonnegative), inputs)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.0])
def test_soft_threshold_and_its_derivatives_are_zero_at_the_kink(
    threshold: float, nonnegative: bool
) -> None:
    u = torch.full((40,), threshold, dtype=torch.float64)
    u[::2] *= -1
    u.requires_grad_()
    t = torch.tensor(threshold, dtype=torch.float64, requires_grad=True)
    out = soft_threshold(u, t, nonnegative=nonnegative)
    assert not out.any()
    out.sum().backward()
    assert not u.grad.any()
    assert t.grad == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prox", ["soft", "nonnegative", "hard"])
def test_a_layer_is_zero_with_zero_derivative_at_the_kink(prox: str, form: str) -> None:
    b = torch.tensor([[0.5], [0.75]], dtype=torch.float64, requires_grad=True)
    eye = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = unroll(b, eye, step=1.0, threshold=t, n_layers=1, prox=prox, form=form).codes
    assert x.tolist() == [[0.0], [0.75 if prox == "hard" else 0.25]]
    x.sum().backward()
    assert b.grad.tolist() == [[0.0], [1.0]]
    assert t.grad == (0 if prox == "hard" else -1)


@pytest.mark.parametrize("n", [1, 8, 37])
def test_soft_threshold_passes_nan_on(n: int) -> None:
    for position in range(n):
        u = torch.zeros(2, n)
        u[1, position] = NAN
        out = soft_threshold(u, 0.1)
        assert torch.equal(out.isnan(), u.isnan())
        assert torch.equal(soft_threshold(u, 0.1, nonnegative=True).isnan(), u.isnan())


# --- The recursion: values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["number", "0-d", "(1,)", "(K,)", "(K, n)", "(K, B, 1)"])
def test_every_shape_of_step_and_threshold(kind: str, form: str) -> None:
    shapes = {"0-d": (), "(1,)": (1,), "(K,)": (K,), "(K, n)": (K, N), "(K, B, 1)": (K, B, 1)}
    b = randn(B, M)
    value = 0.15 if kind == "number" else positive(*shapes[kind])
    full = torch.as_tensor(value, dtype=torch.float64)
    if full.dim() < 3:
        full = full[:, None] if full.dim() == 2 else full.reshape(-1, 1, 1)
    full = full.expand(K, *full.shape[1:])
    result = unroll(
        b, A, step=value, threshold=value, n_layers=K, form=form, iterates=True, objective_weight=2
    )
    x = torch.stack(loop(b, full, full))
    objective = 0.5 * (x @ A.mT - b).square().sum(-1) + 2 * x.abs().sum(-1)
    assert_close(result.codes, x[-1], 1e-12, "codes")
    assert_close(result.iterates, x, 1e-12, "iterates")
    assert_close(result.objective, objective, 1e-12, "objective")


@pytest.mark.parametrize("form", FORMS)
def test_one_dimensional_measurements_drop_the_batch_axis(form: str) -> None:
    b, options = randn(2, M), {"step": 0.2, "threshold": 0.1, "n_layers": K, "form": form}
    options |= {"iterates": True, "objective_weight": 0.3, "momentum": positive(K)}
    options |= {"initial": randn(N), "previous": randn(N, seed=4)}
    flat = unroll(b[1], A, **options)
    batched = unroll(b[1:], A, **options)
    assert flat.codes.shape == (N,)
    assert flat.objective.shape == (K + 1,)
    assert flat.iterates.shape == (K + 1, N)
    assert torch.equal(flat.codes, batched.codes[0])
    assert torch.equal(flat.objective, batched.objective[:, 0])
    assert torch.equal(flat.iterates, batched.iterates[:, 0])
    step = prox_gradient_step(randn(N), b[1], A, step=0.2, threshold=0.1, form=form)
    assert step.shape == (N,)
    assert unrolled_gram(randn(N), A.mT @ A, step=0.1, threshold=0.1, n_layers=2).codes.dim() == 1


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_empty_batch_gives_empty_results_and_zero_gradients(form: str, prepared: bool) -> None:
    b = torch.empty(0, M, dtype=torch.float64, requires_grad=True)
    a = fastunroll.prepare(A, form=form) if prepared else A
    t = positive(K).requires_grad_()
    result = unroll(b, a, step=0.1, threshold=t, form=form, iterates=True, objective_weight=0.1)
    assert result.codes.shape == (0, N)
    assert result.objective.shape == (K + 1, 0)
    assert result.iterates.shape == (K + 1, 0, N)
    (result.codes.sum() + result.objective.sum() + result.iterates.sum()).backward()
    assert b.grad.shape == (0, M)
    assert torch.equal(t.grad, torch.zeros(K, dtype=torch.float64))
    assert soft_threshold(b.detach(), 0.1).shape == (0, M)


@pytest.mark.parametrize("bypass", [0, 2])
@pytest.mark.parametrize("prox", ["soft", "nonnegative", "hard"])
@pytest.mark.parametrize("level", [1e-3, 0.3], ids=["dense", "sparse"])
@pytest.mark.parametrize("form", FORMS)
def test_nan_in_a_sample_gives_nan_there_and_only_there(
    form: str, level: float, prox: str, bypass: int
) -> None:
    b = randn(B, M)
    options = {"step": 0.2, "threshold": level, "n_layers": K, "form": form, "prox": prox}
    options |= {"bypass": (bypass,) * K} if bypass else {}
    clean = unroll(b, A, **options).codes
    b[2, 5] = NAN
    result = unroll(b, A, **options, objective_weight=0.1, iterates=True)
    assert result.codes[2].isnan().all()
    assert result.objective[1:, 2].isnan().all()
    assert result.iterates[1:, 2].isnan().all()
    others = [0, 1, 3, 4]
    assert_close(result.codes[others], clean[others], 1e-12, "other samples")


@pytest.mark.parametrize("form", FORMS)
def test_any_strides_give_the_same_numbers(form: str) -> None:
    def strided(t: Tensor) -> Tensor:
        """The same values with a gap between rows and between columns."""
        wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), NAN)
        wide[..., ::2] = t
        return wide.mT.contiguous().mT[..., ::2] if t.dim() > 1 else wide[::2]

    tensors = {
        "measurements": randn(B, M),
        "dictionary": A,
        "weight": A + 0.1 * randn(K, M, N),
        "step": positive(K, N),
        "threshold": positive(K, B, 1),
        "momentum": positive(K),
        "initial": randn(B, N),
    }

    def run(change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        given = {k: change(t).requires_grad_() for k, t in tensors.items()}
        previous = change(randn(B, N, seed=9))
        result = unroll(**given, previous=previous, form=form, objective_weight=0.2, iterates=True)
        change(randn(*result.iterates.shape)).mul(result.iterates).sum().backward()
        return [*(r.detach() for r in result), *(t.grad for t in given.values())]

    for ours, expected in zip(run(strided), run(torch.clone), strict=True):
        assert_close(ours, expected, 1e-13, "strided")


@pytest.mark.parametrize("form", FORMS)
def test_expanded_inputs(form: str) -> None:
    def run(b: Tensor, t: Tensor, w: Tensor, x: Tensor) -> list[Tensor]:
        inputs = [i.detach().requires_grad_() for i in (b, t, w, x)]
        b, t, w, x = inputs
        y = unroll(b, A, w, step=t, threshold=t, initial=x, form=form).codes
        return [
            y.detach(),
            *torch.autograd.grad(y.sum(), inputs),
        ]  # sum: an expanded gradient comes in

    expanded = (
        randn(1, M).expand(B, M),
        positive(1, 1).expand(K, N),
        A.expand(K, M, N),
        randn(1, 1).expand(B, N),
    )
    plain = [t.contiguous() for t in expanded]
    for ours, expected in zip(run(*expanded), run(*plain), strict=True):
        assert_close(ours, expected, 1e-13, "expanded")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weight", [None, A + 0.1, torch.stack([A, 0.5 * A, A + 0.1])])
def test_prepared_dictionary_gives_the_same_codes(weight: Tensor | None, form: str) -> None:
    b, options = randn(B, M), {"step": 0.2, "threshold": 0.1, "n_layers": K}
    prepared = fastunroll.prepare(A, weight, form=form)
    assert prepared.form == form
    ours = unroll(b, prepared, **options, objective_weight=0.5)
    expected = unroll(b, A, weight, **options, objective_weight=0.5, form=form)
    assert_close(ours.codes, expected.codes, 1e-12, "codes")
    assert_close(ours.objective, expected.objective, 1e-12, "objective")


def test_prepare_rounds_the_gram_matrix_once() -> None:
    a = A.float()
    assert torch.equal(
        fastunroll.prepare(a, form="gram").gram, (a.double().mT @ a.double()).float()[None]
    )


def test_original_lista() -> None:
    b, w1, w2 = randn(B, M), randn(M, N), 0.1 * randn(K, N, N)
    x = torch.zeros(B, N, dtype=torch.float64)
    for matrix in w2:
        x = shrink(b @ w1 + x @ matrix, 0.2)
    ours = unrolled_gram(b @ w1, -w2, step=1.0, threshold=0.2, skip=False).codes
    assert_close(ours, x, 1e-12, "codes")


@pytest.mark.parametrize("count", [1, 3, N, N + 7])
def test_support_selection_keeps_the_largest_entries_unshrunk(count: int) -> None:
    b = randn(B, M)
    u = 0.3 * (b @ A)
    kept = torch.zeros_like(u, dtype=torch.bool).scatter(1, u.abs().argsort(1)[:, -count:], True)
    expected = torch.where(kept & (u.abs() > 0.1), u, shrink(u, 0.1))
    x = torch.zeros(B, N, dtype=torch.float64)
    ours = prox_gradient_step(x, b, A, step=0.3, threshold=0.1, bypass=count)
    assert_close(ours, expected, 1e-12, "codes")


def test_use_backend_is_undone_after_an_error() -> None:
    with pytest.raises(TypeError, match=r"^reference$"), fastunroll.use_backend("reference"):
        raise TypeError(forced_backend())
    assert forced_backend() == "auto"


def test_use_backend_refuses_an_unknown_name() -> None:
    with (
        pytest.raises(ValueError, match="auto, reference; got 'gpu'"),
        fastunroll.use_backend("gpu"),
    ):
        pass


def test_gradient_norm_step_is_its_formula() -> None:
    b, w, c = randn(B, M), randn(K), randn(K, seed=5)
    x = torch.zeros(B, N, dtype=torch.float64)
    for k in range(K):
        v = (x @ A.mT - b) @ A
        gate = 1 / (1 + torch.exp(-(w[k] * v.norm(dim=1, keepdim=True) + c[k])))
        x = shrink(x - (0.1 + (0.7 - 0.1) * gate) * v, 0.05)
    ours = unroll(b, A, step=GradientNormStep(w, c, 0.1, 0.7), threshold=0.05).codes
    assert_close(ours, x, 1e-12, "codes")
