"""Coherence, analytic weights and the symmetric form against their definitions in NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import dictionary

from fastunroll.analysis import (
    analytic_weight,
    convolutional_analytic_weight,
    generalized_coherence,
    mutual_coherence,
    symmetric_preconditioner,
)

M, N = 10, 16


def scaled_dictionary(m: int = M, n: int = N) -> torch.Tensor:
    """Columns of different lengths."""
    return dictionary(m, n) * torch.linspace(0.5, 3, n, dtype=torch.float64)


def dependent_rows() -> torch.Tensor:
    a = scaled_dictionary()
    a[3] = a[1] - 2 * a[2]
    return a


def closed_form(a: np.ndarray) -> np.ndarray:
    """Column by column, with the pseudo-inverse of the Gram matrix."""
    inverse = np.linalg.pinv(a @ a.T, rcond=1e-10)
    columns = [inverse @ atom / (atom @ inverse @ atom) for atom in a.T]
    return np.stack(columns, axis=1)


def constrained_least_squares(a: np.ndarray) -> np.ndarray:
    """Solve the optimality conditions 2 A A^T w + mu a = 0, a^T w = 1 of every column."""
    m = len(a)
    columns = []
    for atom in a.T:
        system = np.block([[2 * a @ a.T, atom[:, None]], [atom[None], np.zeros((1, 1))]])
        columns.append(np.linalg.lstsq(system, np.r_[np.zeros(m), 1.0], rcond=1e-12)[0][:m])
    return np.stack(columns, axis=1)


def shifts(filters: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The explicit dictionary: one column per filter and circular shift."""
    columns = []
    for kernel in filters:
        padded = np.zeros(size)
        padded[tuple(slice(length) for length in kernel.shape)] = kernel
        for shift in itertools.product(*map(range, size)):
            columns.append(np.roll(padded, shift, axis=tuple(range(len(size)))).ravel())
    return np.stack(columns, axis=1)


def random_filters(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_mutual_coherence() -> None:
    a = scaled_dictionary()
    columns = (a / a.norm(dim=0)).numpy().T
    expected = max(abs(p @ q) for p, q in itertools.combinations(columns, 2))
    assert mutual_coherence(a) == pytest.approx(expected, rel=1e-12)
    assert mutual_coherence(torch.eye(4)) == 0
    assert mutual_coherence(a[:, :1]) == 0
    assert mutual_coherence(a[:, [0, 1, 0]]) == pytest.approx(1)


def test_generalized_coherence() -> None:
    a = scaled_dictionary()
    w = a + 0.3 * dictionary(M, N, seed=7)
    rows, columns = w.numpy().T, a.numpy().T
    expected = max(
        abs(rows[i] @ columns[j]) / abs(rows[i] @ columns[i])
        for i, j in itertools.permutations(range(N), 2)
    )
    assert generalized_coherence(a, w) == pytest.approx(expected, rel=1e-12)
    assert generalized_coherence(a, -5 * w) == pytest.approx(expected, rel=1e-12)
    assert generalized_coherence(a[:, :1], w[:, :1]) == 0
    unit = dictionary(M, N)
    assert generalized_coherence(unit, unit) == pytest.approx(mutual_coherence(unit))


@pytest.mark.parametrize("make", [scaled_dictionary, dependent_rows], ids=lambda f: f.__name__)
def test_analytic_weight(make) -> None:
    a = make()
    w = analytic_weight(a)
    np.testing.assert_allclose(w, closed_form(a.numpy()), atol=1e-10)
    np.testing.assert_allclose(
        (w.mT @ a).numpy(), constrained_least_squares(a.numpy()).T @ a.numpy(), atol=1e-9
    )
    np.testing.assert_allclose((w * a).sum(dim=0), 1, rtol=1e-12)


def test_no_feasible_weight_is_better() -> None:
    a = scaled_dictionary()
    w = analytic_weight(a)
    best = float((w.mT @ a).square().sum())
    for seed in range(5):
        move = dictionary(M, N, seed=seed + 10)
        move = move - a * (move * a).sum(dim=0) / a.square().sum(dim=0)
        assert float(((w + 1e-3 * move).mT @ a).square().sum()) > best


def test_ill_conditioned_rows_are_as_exact_as_others() -> None:
    left, _, right = torch.linalg.svd(dictionary(M, N), full_matrices=False)
    values = torch.logspace(0, -6, M, dtype=torch.float64)
    a = left * values @ right
    w = analytic_weight(a)
    exact = (left / values) @ right / right.square().sum(dim=0)
    assert float((w - exact).norm() / exact.norm()) < 1e-8


def test_more_measurements_than_atoms() -> None:
    a = scaled_dictionary(N, M)
    np.testing.assert_allclose(analytic_weight(a).mT @ a, np.eye(M), atol=1e-12)


def test_one_atom() -> None:
    a = torch.tensor([[3.0], [4.0]])
    torch.testing.assert_close(analytic_weight(a), a / 25)
    form = symmetric_preconditioner(a)
    torch.testing.assert_close(form.dictionary, a / 5)
    torch.testing.assert_close(form.scale, torch.ones(1))


def test_rows_that_depend_up_to_rounding_in_float32() -> None:
    a = dependent_rows().float()
    assert int(torch.linalg.matrix_rank(a)) == M - 1
    exact = analytic_weight(dependent_rows())
    assert float((analytic_weight(a) - exact).norm() / exact.norm()) < 1e-5


@pytest.mark.parametrize("make", [scaled_dictionary, dependent_rows], ids=lambda f: f.__name__)
def test_symmetric_form(make) -> None:
    a = make()
    preconditioner, d, scale = symmetric_preconditioner(a)
    gram = a.numpy() @ a.numpy().T
    root = preconditioner.numpy()
    np.testing.assert_allclose(root, root.T, atol=1e-12)
    np.testing.assert_allclose(root @ root, np.linalg.pinv(gram, rcond=1e-10), atol=1e-8)
    np.testing.assert_allclose(d.norm(dim=0), 1, rtol=1e-12)
    np.testing.assert_allclose(d * scale, root @ a.numpy(), atol=1e-10)


def test_the_symmetric_form_keeps_codes_and_weights() -> None:
    a = scaled_dictionary()
    form = symmetric_preconditioner(a)
    x = dictionary(N, 3, seed=4).mT
    torch.testing.assert_close(
        x @ a.mT @ form.preconditioner, (x * form.scale) @ form.dictionary.mT
    )
    # W = P D / scale: one matrix D does the work of both A and W.
    torch.testing.assert_close(
        form.preconditioner @ form.dictionary / form.scale, analytic_weight(a)
    )


@pytest.mark.parametrize(
    ("support", "size"), [((4,), (9,)), ((5,), (5,)), ((2, 3), (5, 4)), ((3, 3), (3, 6))], ids=str
)
def test_convolutional_weight(support: tuple[int, ...], size: tuple[int, ...]) -> None:
    filters = random_filters(3, *support)
    w = convolutional_analytic_weight(filters, size)
    assert w.shape == (3, *size)
    dense = closed_form(shifts(filters.numpy(), size))
    np.testing.assert_allclose(shifts(w.numpy(), size), dense, atol=1e-10)


def test_convolutional_weight_without_some_frequencies() -> None:
    filters = random_filters(2, 4)
    filters -= filters.mean(dim=1, keepdim=True)
    w = convolutional_analytic_weight(filters, (8,))
    dense = closed_form(shifts(filters.numpy(), (8,)))
    np.testing.assert_allclose(shifts(w.numpy(), (8,)), dense, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(dtype: torch.dtype) -> None:
    a = scaled_dictionary()
    results = [analytic_weight(a.to(dtype)), *symmetric_preconditioner(a.to(dtype))]
    expected = [analytic_weight(a), *symmetric_preconditioner(a)]
    for ours, exact in zip(results, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)
    filters = random_filters(3, 4)
    ours = convolutional_analytic_weight(filters.to(dtype), (9,))
    assert ours.dtype == dtype
    exact = convolutional_analytic_weight(filters, (9,))
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [mutual_coherence, analytic_weight, symmetric_preconditioner])
def test_bad_dictionaries(function) -> None:
    a = dictionary(M, N)
    zero, infinite = a.clone(), a.clone()
    zero[:, 3] = 0
    infinite[0, 0] = torch.inf
    for bad, message in [
        (zero, "column 3"),
        (infinite, "NaN or Inf"),
        (a[:, :0], "empty"),
        (a[0], "2 axes"),
    ]:
        with pytest.raises(ValueError, match=f"dictionary .*{message}"):
            function(bad)
    with pytest.raises(TypeError, match="float32 or float64"):
        function(a.half())


@pytest.mark.parametrize("function", [analytic_weight, symmetric_preconditioner])
def test_an_atom_lost_in_rounding_is_an_error(function) -> None:
    a = torch.eye(4, 3, dtype=torch.float64)
    a[2, 2] = 1e-30
    with pytest.raises(ValueError, match="column 2 is lost"):
        function(a)


def test_bad_weights() -> None:
    a = dictionary(M, N)
    with pytest.raises(ValueError, match="weight must have shape"):
        generalized_coherence(a, a[:, 1:])
    with pytest.raises(TypeError, match="weight has dtype"):
        generalized_coherence(a, a.float())
    orthogonal = torch.eye(3)
    with pytest.raises(ValueError, match="column 0 is orthogonal"):
        generalized_coherence(orthogonal, orthogonal[:, [1, 0, 2]])


@pytest.mark.parametrize(
    ("change", "size", "error", "message"),
    [
        (lambda f: f, (3,), ValueError, "signal_shape"),
        (lambda f: f, (9, 9), ValueError, "signal_shape"),
        (lambda f: f, (9.0,), TypeError, "signal_shape"),
        (lambda f: f[0], (9,), ValueError, "filters must have"),
        (lambda f: f[:0], (9,), ValueError, "filters must not be empty"),
        (lambda f: f * torch.tensor([[1.0], [0.0], [1.0]]), (9,), ValueError, "filter 1 is zero"),
        (lambda f: f / 0, (9,), ValueError, "filters contains NaN"),
    ],
)
def test_bad_filters(change, size, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        convolutional_analytic_weight(change(random_filters(3, 4)), size)
