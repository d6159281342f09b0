r"""Equilibrium network: a layer of ALISTA applied until nothing changes, K = infinity.

The codes solve

    x = f(x),   f(x) = S_th(x - g W^T (A x - b))

and g, th and, where wanted, W (m, n) are learned: 2 or m n + 2 numbers. For W = A the codes are the
solution of the LASSO with lambda = th / g. The gradient needs no iterates. On the support S of x,
the derivative of f is I - g G_SS with G = A^T W, and 0 elsewhere, so an incoming gradient v becomes

    w_S = (g G_SS)^{-1} v_S                         implicit
    w_S = v_S                                       Jacobian-free (JFB)

and goes back through one application of f. Sources: Bai, Kolter, Koltun, "Deep equilibrium models",
2019; Fung, Heaton, Li, McKenzie, Osher, Yin, "JFB: Jacobian-free backpropagation for implicit
networks", 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastunroll._checks import (
    check_choice,
    check_dictionary,
    check_number,
    check_positive_int,
    check_tensor,
)
from fastunroll.analysis.analytic import analytic_weight
from fastunroll.functional import UnrolledResult, prox_gradient_step
from fastunroll.nn.fixed_point import FixedPoint, solve_fixed_point
from fastunroll.nn.network import UnrolledNetwork, objectives
from fastunroll.nn.prox_gradient import first_step
from fastunroll.nn.thresholds import at_least_zero
from fastunroll.prepared import PreparedDictionary, check_weight, prepare

GRADIENTS = ("implicit", "jfb")

_MEMORY = {"anderson": 5, "plain": 1}

_SAMPLES_AT_ONCE = 64
"""Samples whose systems are solved together: it bounds the memory."""


class EquilibriumNetwork(UnrolledNetwork):
    """One layer of ALISTA, to its fixed point.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied, not learned.
    n_layers : int
        Most iterations.
    weight : (n_measurements, n_atoms), optional
        W, copied; `fastunroll.analysis.analytic_weight` by default.
    learned_weight : bool
        Learn W, too.
    lam : float
        lambda: the first threshold is lambda / L with L = 1.001 ||A||_2^2. The first step is 1 /
        ||A W^T||_2.
    solver : {"anderson", "plain"}
        Anderson acceleration or plain iteration; see `solve`.
    gradient : {"implicit", "jfb"}
        The exact gradient at the fixed point, or the Jacobian-free one, which is cheaper. Where
        G_SS cannot be inverted, as with more than m non-zeros, the implicit gradient does not
        exist, and the sample gets the Jacobian-free one.
    tolerance : float, optional
        Relative change at which a sample is done; by default 1e-5 in float32, 1e-10 in float64.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Notes
    -----
    The iteration converges for steps below 2 / ||A W^T||_2 if W = A or W is analytic. Training may
    leave this range, and a learned W may give W^T A eigenvalues below zero, where the iteration
    diverges: keep learning rates small, and look at the residual that `solve` returns.
    """

    no_program = "iterates until a sample is done, not for a number of layers"

    dictionary: Tensor

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 1000,
        *,
        weight: Tensor | None = None,
        learned_weight: bool = False,
        lam: float = 0.1,
        solver: str = "anderson",
        gradient: str = "implicit",
        tolerance: float | None = None,
    ) -> None:
        super().__init__()
        a = check_dictionary("dictionary", dictionary).detach().clone()
        self.n_layers = check_positive_int("n_layers", n_layers)
        check_number("lam", lam, minimum=0.0, exclusive=True)
        self.solver = check_choice("solver", solver, tuple(_MEMORY))
        self.gradient = check_choice("gradient", gradient, GRADIENTS)
        if tolerance is None:
            tolerance = 1e-5 if a.dtype == torch.float32 else 1e-10
        self.tolerance = check_number("tolerance", tolerance, minimum=0.0)
        self.register_buffer("dictionary", a)
        w = analytic_weight(a) if weight is None else check_weight(weight, a)[0].detach().clone()
        self.weight = nn.Parameter(w, requires_grad=learned_weight)
        norm = torch.linalg.matrix_norm(a.double() @ w.double().mT, ord=2)
        self.step = nn.Parameter((1 / norm).to(a.dtype))
        self.threshold = nn.Parameter(a.new_tensor(lam * first_step(a)))

    def solve(self, b: Tensor, *, n_layers: int | None = None) -> FixedPoint:
        """Codes of measurements b (batch, m), with their residuals and numbers of iterations.

        A sample is done once ||f(x) - x|| <= tolerance ||f(x)||, or after ``n_layers`` iterations.
        No gradient is computed.
        """
        check_tensor("b", b, (2,))
        count = self.n_layers if n_layers is None else check_positive_int("n_layers", n_layers)
        with torch.no_grad():
            prepared = self._prepared_layer()
            threshold = at_least_zero(self.threshold)

        def layer(codes: Tensor, rows: Tensor) -> Tensor:
            every = len(rows) == len(b)
            return prox_gradient_step(
                codes, b if every else b[rows], prepared, step=self.step, threshold=threshold
            )

        return solve_fixed_point(
            layer,
            b.new_zeros(len(b), self.dictionary.shape[1]),
            memory=_MEMORY[self.solver],
            max_iterations=count,
            tolerance=self.tolerance,
        )

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
        n_layers: int | None = None,
    ) -> UnrolledResult:
        """Codes at the fixed point, after at most ``n_layers`` iterations.

        Objective and iterates hold two entries, x_0 = 0 and the fixed point. Gradients of a
        gradient (``create_graph=True``) raise a RuntimeError.
        """
        flat = check_tensor("b", b, (1, 2)).dim() == 1
        rows = b[None] if flat else b
        codes = self._attached(self.solve(rows.detach(), n_layers=n_layers).codes, rows)
        every = torch.stack((torch.zeros_like(codes), codes))
        if flat:
            codes, every = codes[0], every[:, 0]
        objective = objectives(every, b, self.dictionary, objective_weight)
        return UnrolledResult(codes, objective, every if iterates else None)

    def _attached(self, codes: Tensor, b: Tensor) -> Tensor:
        """Codes at the fixed point with their gradient: f once more, with its result's gradient."""
        if not torch.is_grad_enabled():
            return codes
        learned = self.weight.requires_grad
        result = prox_gradient_step(
            codes,
            b,
            self.dictionary if learned else self._prepared_layer(),
            self.weight if learned else None,
            step=self.step,
            threshold=at_least_zero(self.threshold),
        )
        if result.requires_grad:
            support = result.detach() != 0

            def hook(grad: Tensor | None) -> Tensor | None:
                if torch.is_grad_enabled():
                    raise RuntimeError("an EquilibriumNetwork has no second derivatives")
                return None if grad is None else self._cotangent(grad, support)

            result.register_hook(hook)
        return result

    def _cotangent(self, grad: Tensor, support: Tensor) -> Tensor:
        """Return w of an incoming gradient v, (batch, n_atoms)."""
        if self.gradient == "jfb":
            return grad
        jacobian = self.step * (self.dictionary.mT @ self.weight)
        result = grad.clone()
        solvable = (support.sum(dim=1) <= len(self.dictionary)).nonzero().flatten()
        for rows in solvable.split(_SAMPLES_AT_ONCE):
            result[rows] = solve_on_support(jacobian, support[rows], grad[rows])
        return result

    def _prepared_layer(self) -> PreparedDictionary:
        return self._prepare_once(
            lambda: prepare(self.dictionary, self.weight), self.dictionary, self.weight
        )

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            "n_layers": self.n_layers,
            "learned_weight": self.weight.requires_grad,
            "solver": self.solver,
            "gradient": self.gradient,
            "tolerance": self.tolerance,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> EquilibriumNetwork:
        """Build the network that `config` and a ``state_dict`` describe."""
        return cls(state["dictionary"], weight=state["weight"], **config)


def solve_on_support(matrix: Tensor, support: Tensor, right: Tensor) -> Tensor:
    """Solve M_SS w_S = v_S for the support S of every sample.

    Only the rows and columns of the support are gathered: (batch, s, s) with s the size of the
    largest support, padded with the identity.

    Parameters
    ----------
    matrix : (n, n)
        M.
    support : (batch, n)
        S, bool.
    right : (batch, n)
        v.

    Returns
    -------
    Tensor
        w (batch, n), 0 off the support; v itself where M_SS is singular.
    """
    size = max(support.sum(dim=1).tolist(), default=0)
    index = support.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :size]
    inside = support.gather(1, index)
    both = inside[:, :, None] & inside[:, None, :]
    blocks = torch.where(both, matrix[index[:, :, None], index[:, None, :]], 0)
    blocks = blocks + torch.diag_embed((~inside).to(matrix.dtype))
    vector = torch.where(inside, right.gather(1, index), 0)
    solution, failed = torch.linalg.solve_ex(blocks, vector)
    solved = (failed == 0) & solution.isfinite().all(dim=1)
    solution = torch.where(solved[:, None], solution, vector)
    return torch.zeros_like(right).scatter(1, index, solution)
