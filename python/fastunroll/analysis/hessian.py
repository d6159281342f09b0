"""Spectral norm of a Hessian, from its products with vectors alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from fastunroll._checks import check_number, check_positive_int, check_tensor
from fastunroll.analysis.tangent_kernel import learned_parameters
from fastunroll.backend import use_backend

Parameters = Mapping[str, Tensor]
"""Tensors by name."""


def hessian_norm(
    function: Callable[[Parameters], Tensor],
    parameters: Parameters,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
    seed: int = 0,
) -> float:
    """Spectral norm of the Hessian of a scalar function, by power iteration.

    No (P, P) matrix is made: a few vectors of P numbers are kept. Two largest eigenvalues of
    opposite signs, which are the rule here, do no harm, as only norms are compared.

    Parameters
    ----------
    function : callable
        Twice differentiable in all parameters.
    parameters : mapping of str to Tensor
        Where the Hessian is taken; P numbers in all.
    tolerance : float
        Stop once the estimate grows by less than this share of it in two iterations; positive.
    max_iterations : int
        At least 1.
    seed : int
        Seed of the first vector.

    Returns
    -------
    float
        max |eigenvalue|, from below.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit, or if the Hessian is not finite.
    """
    check_number("tolerance", tolerance, minimum=0.0, exclusive=True)
    check_positive_int("max_iterations", max_iterations)
    generator = torch.Generator().manual_seed(seed)
    direction = {
        name: torch.empty_like(p, device="cpu").normal_(generator=generator).to(p.device)
        for name, p in parameters.items()
    }
    length, estimates = _norm(direction), [0.0, 0.0]
    with use_backend("reference"):
        # The Hessian is symmetric, so the products with its transpose will do.
        product = vjp(grad(function), dict(parameters))[1]
        for _ in range(max_iterations):
            (direction,) = product({name: d / length for name, d in direction.items()})
            length = _norm(direction)
            if not math.isfinite(length):
                raise ValueError("function must have a finite Hessian at parameters")
            if length <= (1 + tolerance) * estimates[-2]:
                break
            estimates.append(length)
    return length


def _norm(direction: Parameters) -> float:
    """Euclidean norm over all tensors."""
    return math.sqrt(sum(float(d.double().square().sum()) for d in direction.values()))


def output_hessian_norm(
    network: nn.Module, sample: Tensor, output: int, *, tolerance: float = 1e-3
) -> float:
    """Spectral norm of the Hessian of one output f_s(y) in the learned parameters.

    Parameters
    ----------
    network : nn.Module
        A function of (n_inputs,), with values (n_outputs,).
    sample : (n_inputs,)
        y.
    output : int
        s.
    tolerance : float
        As in `hessian_norm`.
    """
    check_tensor("sample", sample, (1,))

    def function(parameters: Parameters) -> Tensor:
        found: Tensor = functional_call(network, dict(parameters), (sample,))
        return found[output]

    return hessian_norm(function, learned_parameters(network), tolerance=tolerance)
