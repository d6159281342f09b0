"""Tangent kernel of a network: the matrix that rules its training by gradient descent.

For outputs f_s(y_i; w) the kernel is K[(i, s), (j, r)] = <grad_w f_s(y_i), grad_w f_r(y_j)>. With
the loss L = 1/2 sum ||f(y_i) - x_i||^2 its smallest eigenvalue is a PL constant, 1/2 ||grad L||^2
>= lambda_min(K) L. Source: Liu, Zhu, Belkin, "Loss landscapes and optimization in
over-parameterized non-linear systems and neural networks", Applied and Computational Harmonic
Analysis 59, 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from fastunroll._checks import check_positive_int, check_tensor
from fastunroll.backend import use_backend

_ROWS_AT_ONCE = 256


def learned_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Parameters that require gradients, by name and detached.

    Raises
    ------
    ValueError
        If there are none.
    """
    found = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError("network must have parameters that require gradients")
    return found


def tangent_kernel_bytes(network: nn.Module, n_samples: int, n_outputs: int) -> int:
    """Memory that `tangent_kernel` needs, in bytes.

    It holds the kernel, one product of the same size, and the Jacobian in one parameter tensor.
    """
    parameters = learned_parameters(network).values()
    rows = n_samples * n_outputs
    largest = max(p.numel() for p in parameters)
    return (2 * rows**2 + rows * largest) * next(iter(parameters)).element_size()


def tangent_kernel(network: nn.Module, inputs: Tensor, *, max_bytes: int = 4 * 2**30) -> Tensor:
    """Tangent kernel of all outputs, summed over one parameter tensor after the other.

    Parameters
    ----------
    network : nn.Module
        A function of (batch, n_inputs), with values (batch, n_outputs). Only parameters that
        require gradients count.
    inputs : (batch, n_inputs)
        At least one sample.
    max_bytes : int
        Memory that may be used.

    Returns
    -------
    Tensor
        (batch * n_outputs, batch * n_outputs); row i * n_outputs + s belongs to output s of sample
        i.

    Raises
    ------
    MemoryError
        If it needs more than ``max_bytes``; nothing has been allocated then.
    TypeError, ValueError
        With the name of the argument that does not fit.
    """
    check_positive_int("max_bytes", max_bytes)
    if len(check_tensor("inputs", inputs, (2,))) == 0:
        raise ValueError("inputs must hold at least one sample, got none")
    parameters = learned_parameters(network)
    with use_backend("reference"), torch.no_grad():
        n_outputs = network(inputs[:1]).shape[-1]
        size = len(inputs) * n_outputs
        needed = tangent_kernel_bytes(network, len(inputs), n_outputs)
        if needed > max_bytes:
            raise MemoryError(
                f"the tangent kernel of {len(inputs)} samples and {n_outputs} outputs "
                f"({size} x {size}) needs {needed / 2**30:.3g} GiB, more than max_bytes = "
                f"{max_bytes / 2**30:.3g} GiB; use fewer samples"
            )
        kernel = inputs.new_zeros(size, size)
        for name, parameter in parameters.items():

            def outputs(value: Tensor, sample: Tensor, name: str = name) -> Tensor:
                found: Tensor = functional_call(network, {**parameters, name: value}, (sample,))
                return found

            chunk = max(1, _ROWS_AT_ONCE // n_outputs)
            jacobian = vmap(jacrev(outputs), (None, 0), chunk_size=chunk)(parameter, inputs)
            rows = jacobian.reshape(size, parameter.numel())
            kernel.addmm_(rows, rows.mT)
    return kernel


def smallest_eigenvalue(kernel: Tensor) -> float:
    """Smallest eigenvalue of a kernel; at most 0 up to rounding where the kernel is singular."""
    return float(torch.linalg.eigvalsh(check_tensor("kernel", kernel, (2,)))[0])
