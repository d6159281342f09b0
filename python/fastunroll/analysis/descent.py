"""Gradient descent, watched: loss, PL ratio and Lipschitz ratio along the way."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.utils import parameters_to_vector

from fastunroll._checks import check_like, check_number, check_positive_int, check_tensor
from fastunroll.analysis.tangent_kernel import learned_parameters
from fastunroll.backend import use_backend


class DescentPath(NamedTuple):
    """What gradient descent met, in float64."""

    loss: Tensor
    """L(w_k) = 1/2 sum_i ||f(y_i; w_k) - x_i||^2, k = 0..n_steps: (n_steps + 1,)."""
    pl_ratio: Tensor
    """||grad L(w_k)||^2 / (2 L(w_k)), at least lambda_min(K(w_k)): (n_steps + 1,)."""
    lipschitz_ratio: Tensor
    """||grad L(w_{k+1}) - grad L(w_k)|| / ||w_{k+1} - w_k||: (n_steps,)."""


def gradient_descent(
    network: nn.Module, inputs: Tensor, targets: Tensor, *, learning_rate: float, n_steps: int
) -> DescentPath:
    """Minimise L from the network's parameters by full-batch gradient descent; leave it unchanged.

    Parameters
    ----------
    network : nn.Module
        A function of (batch, n_inputs), with values (batch, n_outputs).
    inputs : (batch, n_inputs)
        y_i.
    targets : (batch, n_outputs)
        x_i.
    learning_rate : float
        Positive; below 2 / lambda_max(K) for descent.
    n_steps : int
        Number of steps.

    Returns
    -------
    DescentPath

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit, or if the loss is no longer finite.
    """
    check_like("targets", check_tensor("targets", targets, (2,)), "inputs", inputs)
    if not 0 < len(check_tensor("inputs", inputs, (2,))) == len(targets):
        raise ValueError(
            f"inputs and targets must have the same number of samples, at least 1; "
            f"got {len(inputs)} and {len(targets)}"
        )
    check_number("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    check_positive_int("n_steps", n_steps)

    def loss_of(parameters: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(network, parameters, (inputs,))
        return 0.5 * (found - targets).square().sum()

    parameters = learned_parameters(network)
    losses, ratios, changes = [], [], []
    before = None
    with use_backend("reference"):
        for step in range(n_steps + 1):
            gradient, loss = grad_and_value(loss_of)(parameters)
            flat = parameters_to_vector(gradient.values()).double()
            if not bool(torch.isfinite(loss)):
                raise ValueError(
                    f"learning_rate = {learning_rate:g} is too large: no finite loss at step {step}"
                )
            losses.append(loss.double())
            ratios.append(flat.square().sum() / (2 * loss.double()))
            if before is not None:
                changes.append((flat - before).norm() / (learning_rate * before.norm()))
            before = flat
            parameters = {
                name: p - learning_rate * gradient[name] for name, p in parameters.items()
            }
    return DescentPath(*(torch.stack(values) for values in (losses, ratios, changes)))
