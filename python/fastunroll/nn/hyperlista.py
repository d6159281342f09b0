r"""HyperLISTA: thresholds, momentum and support selection of every sample from three numbers.

One layer computes, with r_k = A x_k - b and e_k = ||A^+ r_k||_1 as an estimate of ||x_k - x*||_1,

    th_k = c_1 e_k,   beta_k = c_2 ||x_k||_0,   p_k = min(max(c_3 log(e_0 / e_k), 0), 1)
    x_{k+1} = S_{th_k}(x_k - W^T r_k + beta_k (x_k - x_{k-1}))

where the p_k n largest entries that also exceed th_k skip the shrinkage. It has 3 numbers, found by
a search (`fastunroll.training.search`), not by gradients. Source: Chen, Liu, Wang, Yin,
"Hyperparameter tuning is all you need for LISTA", 2021, section 4. The factors mu (coherence) and
gamma = 1 of the paper are part of c_1 and c_2 here, and p_k is a fraction of n, as in the authors'
code, where the paper has a count.

The plain form takes the analytic W. The symmetric form replaces A and W by D = P A diag(s)^-1 with
unit columns and b by P b, where P = (A A^T)^(-1/2), and divides the codes by s. Either way the
entries of A^+ r_k are those of W^T r_k times fixed numbers: s_j^2 in the plain form, s_j in the
symmetric one. So e_k costs no matrix product of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int
from fastunroll.analysis.analytic import analytic_weight, symmetric_preconditioner
from fastunroll.nn.iterated import IteratedNetwork
from fastunroll.ops import reference
from fastunroll.program import Program


class HyperLISTA(IteratedNetwork):
    """HyperLISTA: a dictionary that is kept, and 3 numbers.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied.
    n_layers : int
        K.
    symmetric : bool
        The symmetric form; the plain one may diverge on rare samples.
    threshold_factor, momentum_factor, selection_factor : float
        First c_1, c_2 and c_3. The defaults suit the noiseless benchmark problem, with 250
        measurements, 500 atoms and codes of 50 non-zeros; others need a search.

    Attributes
    ----------
    ranges : dict of str to (float, float)
        Where `fastunroll.training.search` should look for the three numbers.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "threshold_factor": (1e-4, 1.0),
        "momentum_factor": (1e-4, 0.1),
        "selection_factor": (1e-2, 1.0),
    }

    threshold_factor: Tensor
    momentum_factor: Tensor
    selection_factor: Tensor
    transform: Tensor | None
    synthesis: Tensor
    weight: Tensor
    error_scale: Tensor

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 16,
        *,
        symmetric: bool = True,
        threshold_factor: float = 0.0092,
        momentum_factor: float = 0.0048,
        selection_factor: float = 0.21,
    ) -> None:
        super().__init__(dictionary)
        self._n_layers = check_positive_int("n_layers", n_layers)
        self.symmetric = symmetric
        a = self.dictionary
        transform, atoms, scale = symmetric_preconditioner(a)
        self.register_buffer("transform", transform if symmetric else None, False)
        self.register_buffer("synthesis", atoms if symmetric else a, False)
        self.register_buffer("weight", atoms if symmetric else analytic_weight(a), False)
        self.register_buffer("error_scale", scale if symmetric else scale.square(), False)
        for name, factor in (
            ("threshold_factor", threshold_factor),
            ("momentum_factor", momentum_factor),
            ("selection_factor", selection_factor),
        ):
            value = check_number(name, factor, minimum=0.0)
            self.register_parameter(name, nn.Parameter(a.new_tensor(value)))

    @property
    def n_layers(self) -> int:
        """Number of layers K."""
        return self._n_layers

    def _codes(self, b: Tensor, n_layers: int) -> Iterator[Tensor]:
        b = b if self.transform is None else b @ self.transform
        x = before = b.new_zeros(len(b), self.dictionary.shape[1])
        first_error = None
        for _ in range(n_layers):
            direction = (x @ self.synthesis.mT - b) @ self.weight
            error = (direction * self.error_scale).abs().sum(dim=1, keepdim=True)
            first_error = error if first_error is None else first_error
            counts = selected_counts(self.selection_factor, first_error, error, x.shape[1])
            momentum = self.momentum_factor * (x != 0).sum(dim=1, keepdim=True)
            u = x - direction + momentum * (x - before)
            before, x = x, selective_soft_threshold(u, self.threshold_factor * error, counts)
            yield x / self.error_scale if self.symmetric else x

    @torch.no_grad()
    def program(self) -> Program[Tensor]:
        """The layers with their rule; c = b P W is one product, and G = D^T W is formed once."""
        like = self.dictionary
        weight = self.weight.double()
        transform = weight if self.transform is None else self.transform.double() @ weight
        factors = (self.threshold_factor, self.momentum_factor, self.selection_factor)
        threshold, momentum, selection = (f.expand(self.n_layers).clone() for f in factors)
        return Program(
            weight=transform.to(like.dtype),
            gram=(self.synthesis.double().mT @ weight).to(like.dtype),
            step=torch.ones_like(threshold),
            threshold=threshold,
            momentum=momentum,
            error_scale=self.error_scale,
            selection=selection,
            code_scale=self.error_scale if self.symmetric else None,
            heavy_ball=True,
        )

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {**super().config(), "symmetric": self.symmetric}


@torch.no_grad()
def selected_counts(factor: Tensor, first_error: Tensor, error: Tensor, n_atoms: int) -> Tensor:
    """Entries of each sample that may skip the shrinkage: (batch, 1), int64.

    The fraction min(max(factor log(first_error / error), 0), 1) of ``n_atoms``, to the nearest
    integer, halves up; 0 where the errors tell nothing (both 0, or NaN). Errors are (batch, 1).
    """
    fraction = (factor * (first_error / error).log()).nan_to_num(0.0).clamp(0.0, 1.0)
    return (fraction * n_atoms + 0.5).long()


def selective_soft_threshold(u: Tensor, threshold: Tensor, counts: Tensor) -> Tensor:
    """Soft threshold with support selection, where each sample has its own count.

    The ``counts[i]`` largest entries of ``|u[i]|``, ties at the last rank included, are kept as
    they are if they exceed the threshold. The selection carries no gradient.

    Parameters
    ----------
    u : (batch, n_atoms)
    threshold, counts : (batch, 1)
    """
    magnitude = u.detach().abs()
    rank = (u.shape[1] - counts).clamp(max=u.shape[1] - 1)
    last = _ascending(magnitude).gather(1, rank)
    kept = (counts > 0) & (magnitude >= last) & (magnitude > threshold)
    return torch.where(kept, u, reference.soft_threshold(u, threshold))


def _ascending(rows: Tensor) -> Tensor:
    """Sort every row; by NumPy, in a 25th of the time, where PyTorch need not follow."""
    followed = torch.is_grad_enabled() or torch.compiler.is_compiling()
    if followed or rows.device.type != "cpu":
        return rows.sort(dim=1).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=1))
