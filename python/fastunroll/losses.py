"""Training losses; each is the mean over the batch."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from fastunroll._checks import check_like, check_number, check_shape, check_tensor
from fastunroll.solvers.lasso import lasso_objective


def supervised_loss(codes: Tensor, target: Tensor) -> Tensor:
    """Squared error ||x_K - x*||_2^2: summed over the atoms, mean over the batch.

    Parameters
    ----------
    codes, target : (batch, n_atoms)
        x_K and x*.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    TypeError, ValueError
        If dtype, device or shape of ``target`` is not that of ``codes``.
    """
    check_tensor("codes", codes, (2,))
    check_like("target", check_tensor("target", target, (2,)), "codes", codes)
    check_shape("target", target, tuple(codes.shape), "that of codes")
    return (codes - target).square().sum(dim=1).mean()


def lasso_loss(codes: Tensor, measurements: Tensor, dictionary: Tensor, lam: float) -> Tensor:
    """Unsupervised loss F(x_K) = 1/2 ||A x_K - b||_2^2 + lam ||x_K||_1, mean over the batch.

    A network that runs with ``objective_weight=lam`` computes the same number on its way:
    ``objective[-1].mean()``.

    Parameters
    ----------
    codes, measurements, dictionary, lam
        As in `fastunroll.solvers.lasso_objective`.

    Returns
    -------
    Tensor
        Scalar.
    """
    return lasso_objective(codes, measurements, dictionary, lam).mean()


def lpg_loss(
    codes: Tensor,
    target: Tensor,
    objective: Tensor,
    steps: Tensor,
    thresholds: Tensor,
    *,
    beta: float,
    gamma: float,
) -> Tensor:
    """Loss of LPG-Net: squared error, penalty on rising objective, penalty on large parameters.

    ||x_K - x*||^2 + beta sum_k max(0, F(x_{k+1}) - F(x_k)) + gamma sum_k (alpha_k^2 + tau_k^2),
    summed over the atoms and the layers, mean over the batch. Source: Wang, Xu, Zhang, "A Learnable
    Proximal Gradient Unrolling Network for Sparse Learning".

    Parameters
    ----------
    codes, target : (batch, n_atoms)
        x_K and x*.
    objective : (n_layers + 1, batch)
        F(x_k), k = 0..K.
    steps : (n_layers, batch) or (n_layers,)
        alpha_k of each sample, or of all.
    thresholds : (n_layers,)
        tau_k.
    beta, gamma : float
        Weights of the penalties, at least 0.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """
    error = supervised_loss(codes, target)
    n_layers, batch = len(check_tensor("thresholds", thresholds, (1,))), len(codes)
    check_tensor("objective", objective, (2,))
    check_shape("objective", objective, (n_layers + 1, batch), "n_layers + 1, batch")
    expected = (n_layers, batch)[: check_tensor("steps", steps, (1, 2)).dim()]
    check_shape("steps", steps, expected, "n_layers, batch")
    beta = check_number("beta", beta, minimum=0.0)
    gamma = check_number("gamma", gamma, minimum=0.0)
    rise = relu(objective.diff(dim=0)).sum(dim=0).mean()
    squares = steps.square().reshape(n_layers, -1).mean(dim=1) + thresholds.square()
    return error + beta * rise + gamma * squares.sum()
