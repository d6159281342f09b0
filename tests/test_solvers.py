"""LASSO solvers against scikit-learn, the optimality conditions and plain NumPy transcriptions."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

import fastunroll
from fastunroll.analysis import lipschitz_constant
from fastunroll.solvers import admm, duality_gap, fista, ista, lasso_objective

SOLVERS = [ista, fista, admm]
TOLERANCE = 1e-13
LAM = 0.2


def make_problem(
    m: int, n: int, batch: int = 4, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Measurements (batch, m) of sparse codes and a dictionary (m, n) with unit columns."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(m, n, generator=generator, dtype=torch.float64)
    a /= a.norm(dim=0)
    x = torch.randn(batch, n, generator=generator, dtype=torch.float64)
    x[torch.rand(batch, n, generator=generator) > 0.2] = 0
    b = x @ a.T + 0.05 * torch.randn(batch, m, generator=generator, dtype=torch.float64)
    return b.to(dtype), a.to(dtype)


def sklearn_codes(b: Tensor, a: Tensor, lam: float) -> np.ndarray:
    """Exact codes; scikit-learn divides the squared error by 2 m instead of 2."""
    model = Lasso(lam / len(a), fit_intercept=False, tol=1e-14, max_iter=1_000_000)
    return np.stack([model.fit(a.numpy(), row).coef_ for row in b.numpy()])


def numpy_shrink(u: np.ndarray, threshold: float) -> np.ndarray:
    return np.sign(u) * np.maximum(np.abs(u) - threshold, 0)


def numpy_objective(x: np.ndarray, b: np.ndarray, a: np.ndarray, lam: float) -> np.ndarray:
    return 0.5 * ((x @ a.T - b) ** 2).sum(1) + lam * np.abs(x).sum(1)


def numpy_fista(
    b: np.ndarray, a: np.ndarray, lam: float, n_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Beck and Teboulle, "FISTA with constant stepsize": codes and their objectives."""
    lipschitz = np.linalg.norm(a, 2) ** 2
    x = y = np.zeros((len(b), a.shape[1]))
    t = 1.0
    history = [numpy_objective(x, b, a, lam)]
    for _ in range(n_iterations):
        x_next = numpy_shrink(y - (y @ a.T - b) @ a / lipschitz, lam / lipschitz)
        t_next = (1 + math.sqrt(1 + 4 * t**2)) / 2
        y = x_next + (t - 1) / t_next * (x_next - x)
        x, t = x_next, t_next
        history.append(numpy_objective(x, b, a, lam))
    return x, np.stack(history)


def numpy_admm(
    b: np.ndarray, a: np.ndarray, lam: float, rho: float, n_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """ADMM with the inverse written out: sparse codes z and their objectives."""
    inverse = np.linalg.inv(a.T @ a + rho * np.eye(a.shape[1]))
    z = w = np.zeros((len(b), a.shape[1]))
    history = [numpy_objective(z, b, a, lam)]
    for _ in range(n_iterations):
        x = (b @ a + rho * (z - w)) @ inverse
        z = numpy_shrink(x + w, lam / rho)
        w = w + x - z
        history.append(numpy_objective(z, b, a, lam))
    return z, np.stack(history)


@pytest.mark.parametrize("shape", [(15, 40), (40, 15), (20, 20), (3, 1)])
def test_lipschitz_constant_is_the_squared_spectral_norm(shape: tuple[int, int]) -> None:
    _, a = make_problem(*shape)
    expected = np.linalg.norm(a.numpy(), 2) ** 2
    assert lipschitz_constant(a) == pytest.approx(expected, rel=1e-12)
    rounded = a.float()  # its constant too is computed in float64
    expected = np.linalg.norm(rounded.double().numpy(), 2) ** 2
    assert lipschitz_constant(rounded) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="zeros"):
        lipschitz_constant(torch.zeros(3, 3))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_codes_equal_those_of_scikit_learn(solver: Any, shape: tuple[int, int]) -> None:
    b, a = make_problem(*shape)
    result = solver(b, a, LAM, tolerance=TOLERANCE, max_iterations=20_000)
    assert result.converged
    expected = sklearn_codes(b, a, LAM)
    assert 0 < (expected != 0).mean() < 0.7
    np.testing.assert_allclose(result.codes.numpy(), expected, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(result.codes.numpy() != 0, expected != 0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_codes_meet_the_optimality_conditions(solver: Any) -> None:
    b, a = make_problem(20, 30, seed=1)
    x = solver(b, a, LAM, tolerance=TOLERANCE, max_iterations=20_000).codes
    gradient = (x @ a.T - b) @ a
    # Distance of 0 from the subdifferential of F: on the support and off it.
    on = (gradient + LAM * x.sign()).abs()
    off = (gradient.abs() - LAM).clamp(min=0)
    assert torch.where(x != 0, on, off).max() < 1e-9


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_reaches_its_accuracy(solver: Any) -> None:
    b, a = make_problem(30, 20, dtype=torch.float32)
    result = solver(b, a, LAM, tolerance=2e-5)
    assert result.converged
    assert {t.dtype for t in result[:3]} == {torch.float32}
    expected = sklearn_codes(b.double(), a.double(), LAM)
    np.testing.assert_allclose(result.codes.numpy(), expected, rtol=0, atol=1e-4)


def test_objective_is_that_of_the_formula() -> None:
    b, a = make_problem(10, 15)
    x = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(4, 15)
    expected = numpy_objective(x.numpy(), b.numpy(), a.numpy(), 0.3)
    np.testing.assert_allclose(lasso_objective(x, b, a, 0.3).numpy(), expected, rtol=1e-13)
    prepared = fastunroll.prepare(a)
    np.testing.assert_allclose(lasso_objective(x, b, prepared, 0.3).numpy(), expected, rtol=1e-13)
    assert lasso_objective(x[1], b[1], a, 0.3).item() == pytest.approx(expected[1])
    assert torch.autograd.gradcheck(lambda x: lasso_objective(x, b, a, 0.3), x.requires_grad_())


@pytest.mark.parametrize("scale", [0.1, 0.9, 1.0, 1.5])
def test_gap_is_that_of_the_dual_problem_and_bounds_the_error(scale: float) -> None:
    b, a = make_problem(20, 30)
    optimum = torch.from_numpy(sklearn_codes(b, a, LAM))
    x = scale * optimum
    gap = duality_gap(x, b, a, LAM)
    objective = lasso_objective(x, b, a, LAM)
    residual = b - x @ a.T
    theta = residual * (LAM / (residual @ a).abs().amax(1, keepdim=True)).clamp(max=1)
    dual = 0.5 * b.square().sum(1) - 0.5 * (b - theta).square().sum(1)
    torch.testing.assert_close(gap, objective - dual, rtol=0, atol=1e-12)
    assert (gap >= 0).all()
    assert (gap >= objective - lasso_objective(optimum, b, a, LAM) - 1e-12).all()
    assert gap.max() < 1e-11 if scale == 1.0 else gap.min() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gap_is_never_negative(dtype: torch.dtype) -> None:
    b, a = make_problem(20, 30, batch=200, dtype=dtype)
    result = fista(b, a, LAM, tolerance=0, max_iterations=400)
    torch.testing.assert_close(result.gap, duality_gap(result.codes, b, a, LAM))
    assert (result.gap >= 0).all()
    assert (result.gap <= 1e-4 * result.objective[-1]).all()


def test_gap_of_an_exact_fit_is_that_of_the_l1_norm() -> None:
    a = torch.eye(3, dtype=torch.float64)
    x = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
    assert duality_gap(x, x, a, LAM).item() == pytest.approx(3 * LAM)


@pytest.mark.parametrize("check_every", [1, 7, 100])
def test_fista_in_chunks_equals_a_plain_transcription(check_every: int) -> None:
    b, a = make_problem(20, 30)
    result = fista(b, a, LAM, tolerance=0, max_iterations=60, check_every=check_every)
    codes, history = numpy_fista(b.numpy(), a.numpy(), LAM, 60)
    np.testing.assert_allclose(result.codes.numpy(), codes, rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.objective.numpy(), history, rtol=1e-10)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (20, 20)])
@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_admm_equals_a_plain_transcription(shape: tuple[int, int], rho: float) -> None:
    b, a = make_problem(*shape)
    result = admm(b, a, LAM, rho=rho, tolerance=0, max_iterations=40, check_every=7)
    codes, history = numpy_admm(b.numpy(), a.numpy(), LAM, rho, 40)
    np.testing.assert_allclose(result.codes.numpy(), codes, rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.objective.numpy(), history, rtol=1e-10)


def test_woodbury_branch_of_admm_equals_the_direct_branch() -> None:
    b, a = make_problem(20, 30)
    # Rows of zeros change nothing but the shape, and with it the branch.
    tall_a = torch.cat([a, a.new_zeros(15, 30)])
    tall_b = torch.cat([b, b.new_zeros(4, 15)], dim=1)
    wide, direct = admm(b, a, LAM, tolerance=1e-8), admm(tall_b, tall_a, LAM, tolerance=1e-8)
    assert wide.n_iterations == direct.n_iterations
    torch.testing.assert_close(wide.codes, direct.codes, rtol=0, atol=1e-11)
    torch.testing.assert_close(wide.objective, direct.objective, rtol=1e-11, atol=0)


def test_ista_is_the_plain_iteration_and_never_ascends() -> None:
    b, a = make_problem(20, 30)
    result = ista(b, a, LAM, tolerance=0, max_iterations=45, check_every=10)
    step = 1 / np.linalg.norm(a.numpy(), 2) ** 2
    x = np.zeros((4, 30))
    history = [numpy_objective(x, b.numpy(), a.numpy(), LAM)]
    for _ in range(45):
        x = numpy_shrink(x - step * (x @ a.numpy().T - b.numpy()) @ a.numpy(), LAM * step)
        history.append(numpy_objective(x, b.numpy(), a.numpy(), LAM))
    np.testing.assert_allclose(result.codes.numpy(), x, rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.objective.numpy(), np.stack(history), rtol=1e-10)
    assert (result.objective.diff(dim=0) < 0).all()


def test_fista_needs_fewer_iterations_than_ista() -> None:
    b, a = make_problem(30, 60)
    run = {"tolerance": 1e-6, "max_iterations": 20_000, "check_every": 1}
    assert fista(b, a, 0.05, **run).n_iterations < ista(b, a, 0.05, **run).n_iterations / 2


@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_start_saves_iterations(solver: Any) -> None:
    b, a = make_problem(20, 30)
    run: dict[str, Any] = {"tolerance": 1e-6, "max_iterations": 20_000, "check_every": 1}
    near = solver(b, a, 1.01 * LAM, **run).codes
    cold = solver(b, a, LAM, **run)
    warm = solver(b, a, LAM, initial=near, **run)
    assert warm.converged
    assert warm.n_iterations < cold.n_iterations
    torch.testing.assert_close(warm.objective[-1], cold.objective[-1], rtol=1e-6, atol=0)
    torch.testing.assert_close(warm.objective[0], lasso_objective(near, b, a, LAM))


@pytest.mark.parametrize("solver", SOLVERS)
def test_solution_stays_where_it_is(solver: Any) -> None:
    b, a = make_problem(20, 30)
    optimum = torch.from_numpy(sklearn_codes(b, a, LAM))
    accepted = solver(b, a, LAM, initial=optimum, tolerance=1e-9)
    assert (accepted.n_iterations, accepted.converged) == (0, True)
    moved = solver(b, a, LAM, initial=optimum, tolerance=0, max_iterations=5)
    torch.testing.assert_close(moved.codes, optimum, rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_stop_rule(solver: Any) -> None:
    b, a = make_problem(20, 30)
    done = solver(b, a, LAM, tolerance=1e-5, max_iterations=5000, check_every=8)
    assert done.converged
    assert 0 < done.n_iterations < 5000
    assert done.n_iterations % 8 == 0
    assert (done.gap <= 1e-5 * done.objective[-1]).all()
    assert done.objective.shape == (done.n_iterations + 1, 4)
    # One look earlier at least one sample had not met the tolerance.
    earlier = solver(b, a, LAM, tolerance=0, max_iterations=done.n_iterations - 8, check_every=8)
    assert (earlier.gap > 1e-5 * earlier.objective[-1]).any()
    cut = solver(b, a, LAM, tolerance=1e-5, max_iterations=13, check_every=8)
    assert not cut.converged
    assert cut.n_iterations == 13
    torch.testing.assert_close(cut.objective, done.objective[:14], rtol=1e-12, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_large_lam_gives_zero_codes_without_iterations(solver: Any) -> None:
    b, a = make_problem(20, 30)
    largest = float((b @ a).abs().max())
    result = solver(b, a, largest, tolerance=0)
    assert (result.n_iterations, result.converged) == (0, True)
    assert not result.codes.any()
    assert solver(b, a, 0.99 * largest, tolerance=1e-9).codes.any()


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_axis_in_one_axis_out(solver: Any) -> None:
    b, a = make_problem(20, 30)
    run: dict[str, Any] = {"tolerance": 0, "max_iterations": 10}
    batch = solver(b[:1], a, LAM, initial=torch.ones(1, 30, dtype=b.dtype), **run)
    single = solver(b[0], a, LAM, initial=torch.ones(30, dtype=b.dtype), **run)
    assert single.codes.shape == (30,)
    assert single.objective.shape == (11,)
    assert single.gap.shape == ()
    expected = (batch.codes[0], batch.objective[:, 0], batch.gap[0])
    torch.testing.assert_close(single[:3], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("solver", SOLVERS)
def test_empty_batch_gives_empty_results(solver: Any) -> None:
    _, a = make_problem(20, 30)
    result = solver(a.new_zeros(0, 20), a, LAM)
    assert (result.codes.shape, result.gap.shape) == ((0, 30), (0,))
    assert (result.objective.shape, result.n_iterations) == ((1, 0), 0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("form", ["gram", "factored"])
def test_prepared_dictionary_gives_the_same_codes(solver: Any, form: str) -> None:
    b, a = make_problem(20, 30)
    prepared = fastunroll.prepare(a, form=form)
    expected = solver(b, a, LAM, tolerance=1e-9)
    result = solver(b, prepared, LAM, tolerance=1e-9)
    torch.testing.assert_close(result.codes, expected.codes, rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_gradient_is_recorded_and_inputs_are_left_alone(solver: Any) -> None:
    b, a = make_problem(20, 30)
    initial = torch.ones(4, 30, dtype=b.dtype)
    inputs = [b, a, initial]
    copies = [t.clone() for t in inputs]
    result = solver(b.requires_grad_(), a.requires_grad_(), LAM, initial=initial.requires_grad_())
    assert not any(t.requires_grad for t in result[:3])
    torch.testing.assert_close([t.detach() for t in inputs], copies, rtol=0, atol=0)
    unmoved = solver(b, a, LAM, initial=initial, tolerance=1e9)
    assert unmoved.n_iterations == 0
    assert not unmoved.codes.requires_grad
    assert unmoved.codes.data_ptr() != initial.data_ptr()


@pytest.mark.parametrize("solver", [ista, fista])
def test_long_step_warns_with_its_value_and_the_constant(solver: Any) -> None:
    b, a = make_problem(20, 30)
    lipschitz = lipschitz_constant(a)
    step = 2.01 / lipschitz
    with pytest.warns(UserWarning, match=r"outside \(0, 2/L\)") as caught:
        solver(b, a, LAM, step=step, max_iterations=1)
    message = str(caught[0].message)
    assert f"{step:g}" in message
    assert f"{lipschitz:g}" in message
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver(b, a, LAM, step=1.99 / lipschitz, max_iterations=1)


def test_step_is_used() -> None:
    b, a = make_problem(20, 30)
    step = 0.3 / lipschitz_constant(a)
    result = ista(b, a, LAM, step=step, tolerance=0, max_iterations=1)
    expected = numpy_shrink(step * (b @ a).numpy(), LAM * step)
    np.testing.assert_allclose(result.codes.numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"measurements": np.zeros((4, 20))}, TypeError, "measurements must be a torch.Tensor"),
        ({"measurements": torch.zeros(4, 20)}, TypeError, "measurements has dtype"),
        ({"measurements": torch.zeros(4, 21).double()}, ValueError, r"shape \(4, 20\)"),
        ({"measurements": torch.zeros(21).double()}, ValueError, r"shape \(20,\)"),
        ({"measurements": torch.full((4, 20), math.nan).double()}, ValueError, "NaN or Inf"),
        ({"dictionary": torch.zeros(20, 30).double()}, ValueError, "30 column.s. of zeros"),
        ({"dictionary": torch.full((20, 30), math.inf).double()}, ValueError, "dictionary cont"),
        ({"dictionary": torch.ones(20).double()}, ValueError, "dictionary must have 2 axes"),
        ({"lam": 0.0}, ValueError, "lam must be greater than 0"),
        ({"lam": -1.0}, ValueError, "lam must be greater than 0"),
        ({"lam": torch.ones(4)}, TypeError, "lam must be a number"),
        ({"initial": torch.zeros(4, 20).double()}, ValueError, r"initial .* shape \(4, 30\)"),
        ({"initial": torch.zeros(30).double()}, ValueError, r"initial .* shape \(4, 30\)"),
        ({"initial": torch.zeros(4, 30)}, TypeError, "initial has dtype"),
        ({"initial": torch.full((4, 30), math.nan).double()}, ValueError, "initial contains NaN"),
        ({"max_iterations": 0}, ValueError, "max_iterations must be at least 1"),
        ({"max_iterations": 1.5}, TypeError, "max_iterations must be an int"),
        ({"tolerance": -1e-3}, ValueError, "tolerance must be at least 0"),
        ({"check_every": 0}, ValueError, "check_every must be at least 1"),
    ],
)
def test_bad_input_is_named(
    solver: Any, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    b, a = make_problem(20, 30)
    arguments = {"measurements": b, "dictionary": a, "lam": LAM, **change}
    with pytest.raises(error, match=message):
        solver(**arguments)


@pytest.mark.parametrize("solver", [ista, fista])
@pytest.mark.parametrize("step", [0.0, -0.1, math.nan])
def test_step_must_be_positive(solver: Any, step: float) -> None:
    b, a = make_problem(20, 30)
    with pytest.raises(ValueError, match="step must be"):
        solver(b, a, LAM, step=step)


def test_rho_must_be_positive() -> None:
    with pytest.raises(ValueError, match="rho must be greater than 0"):
        admm(*make_problem(20, 30), LAM, rho=0.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_dictionary_prepared_with_a_weight_is_refused(solver: Any) -> None:
    b, a = make_problem(20, 30)
    with pytest.raises(ValueError, match="dictionary must be prepared without a weight"):
        solver(b, fastunroll.prepare(a, 2 * a), LAM)


def test_codes_must_fit_the_problem() -> None:
    b, a = make_problem(20, 30)
    for function in (lasso_objective, duality_gap):
        with pytest.raises(ValueError, match=r"codes must have shape \(4, 30\)"):
            function(torch.zeros(4, 29).double(), b, a, LAM)
