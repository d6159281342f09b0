r"""PUDLE: dictionary learning by back-propagation through an unrolled encoder.

Encoder, from z_0 = 0 with K layers, and decoder:

    z_{k+1} = S_{alpha lambda_k}(z_k - alpha D^T (D z_k - x)),   lambda_k = lambda beta^k
    x^ = D z_K

The dictionary D is learned with one of three gradients:

    g_dec        of 1/2 ||x - D z_K||^2 in D, with z_K held fixed
    g_ae-lasso   of 1/2 ||x - D z_K||^2 + lambda ||z_K||_1, through the encoder as well
    g_ae-ls      of 1/2 ||x - D z_K||^2, through the encoder as well

Source: Tolooshams, Ba, "Stable and Interpretable Unrolled Dictionary Learning", TMLR 2022.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from fastunroll._checks import (
    check_choice,
    check_dictionary,
    check_number,
    check_positive_int,
    check_shape,
    check_tensor,
)
from fastunroll.analysis.spectral import lipschitz_constant
from fastunroll.functional import UnrolledResult, unrolled_prox_gradient
from fastunroll.nn.network import UnrolledNetwork
from fastunroll.ops.arguments import SELECTIVE
from fastunroll.program import Program
from fastunroll.solvers.fista import nesterov_momentum

GRADIENTS = ("dec", "ae-lasso", "ae-ls")
CONSTRAINTS = ("projected", "normalised")


class PUDLE(UnrolledNetwork):
    """PUDLE: one learned dictionary that encodes and decodes.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        D to start from, float32 or float64; copied and made to meet the constraint.
    n_layers : int
        K.
    lam : float
        lambda, at least 0. With ``prox="hard"`` it is the threshold itself.
    step : float, optional
        alpha. By default 1 / ||D||_2^2, which follows the dictionary: it is computed anew in every
        `project`. That takes an eigenvalue problem of size min(n_measurements, n_atoms); give a
        step where these are large.
    gradient : {"ae-ls", "ae-lasso", "dec"}
        What `loss` is the loss of.
    prox : {"soft", "nonnegative", "hard"}
        Shrinkage of the encoder: l1 norm, l1 norm and non-negative codes, or the hard threshold
        v 1[|v| > lambda].
    layer_decay : float
        beta, in (0, 1].
    accelerated : bool
        FISTA in place of ISTA.
    constraint : {"projected", "normalised"}
        Columns of norm at most 1, or of norm 1.
    learn_step, learn_lam : bool
        Learn alpha (starting at ``step``), or lambda, through the encoder.

    Attributes
    ----------
    dictionary : (n_measurements, n_atoms)
        D.
    lam, layer_decay, step : scalar tensors
        lambda, beta and alpha. They may be changed in place between two steps of a training, for
        instance ``model.lam.fill_(0.1)``; the step only where it does not follow the dictionary.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    """

    lam: Tensor
    step: Tensor
    layer_decay: Tensor
    _momentum: Tensor

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 100,
        *,
        lam: float = 0.2,
        step: float | None = None,
        gradient: str = "ae-ls",
        prox: str = "soft",
        layer_decay: float = 1.0,
        accelerated: bool = False,
        constraint: str = "projected",
        learn_step: bool = False,
        learn_lam: bool = False,
    ) -> None:
        super().__init__()
        dictionary = check_dictionary("dictionary", dictionary)
        self.n_layers = check_positive_int("n_layers", n_layers)
        check_number("lam", lam, minimum=0.0)
        if check_number("layer_decay", layer_decay, minimum=0.0, exclusive=True) > 1:
            raise ValueError(f"layer_decay must be at most 1, got {layer_decay:g}")
        if step is not None:
            check_number("step", step, minimum=0.0, exclusive=True)
        self.gradient = check_choice("gradient", gradient, GRADIENTS)
        self.prox = check_choice("prox", prox, SELECTIVE)
        self.constraint = check_choice("constraint", constraint, CONSTRAINTS)
        if prox == "hard" and gradient == "ae-lasso":
            raise ValueError("gradient must be 'dec' or 'ae-ls' with prox='hard': it has no lasso")
        if gradient == "dec" and (learn_step or learn_lam):
            raise ValueError(
                "gradient must be 'ae-ls' or 'ae-lasso' to learn the step or lam: 'dec' does not "
                "reach the encoder"
            )
        if prox == "hard" and learn_lam:
            raise ValueError(
                "learn_lam must be False with prox='hard': it has no derivative in lam"
            )
        self.accelerated = accelerated
        self.follows_dictionary = step is None and not learn_step
        self.dictionary = nn.Parameter(dictionary.detach().clone())
        self._add_scalar("lam", lam, learn_lam)
        self._add_scalar("layer_decay", layer_decay, False)
        self._add_scalar("step", 1.0 if step is None else step, learn_step)
        momentum = list(islice(nesterov_momentum(), n_layers)) if accelerated else []
        self.register_buffer("_momentum", dictionary.new_tensor(momentum), persistent=False)
        self.project()
        if step is None:
            self._follow_dictionary()

    def _add_scalar(self, name: str, value: float, learned: bool) -> None:
        scalar = self.dictionary.new_tensor(value)
        if learned:
            self.register_parameter(name, nn.Parameter(scalar.detach()))
        else:
            self.register_buffer(name, scalar.detach())

    @property
    def thresholds(self) -> Tensor:
        """Threshold of each layer, alpha lambda_k, or lambda_k with the hard one: (n_layers,)."""
        layers = torch.arange(self.n_layers, dtype=self.lam.dtype, device=self.lam.device)
        thresholds = self.lam * self.layer_decay**layers
        return thresholds if self.prox == "hard" else self.step * thresholds

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
        n_layers: int | None = None,
    ) -> UnrolledResult:
        """Encode x = ``b`` with the first ``n_layers`` layers, all by default.

        See `fastunroll.unrolled_prox_gradient` for the other arguments. In ``eval()`` mode and
        without gradients the dictionary is prepared once, for as long as it does not change.
        """
        changes = self.training or torch.is_grad_enabled()
        return unrolled_prox_gradient(
            b,
            self.dictionary if changes else self._prepare(self.dictionary),
            step=self.step,
            threshold=self.thresholds[:n_layers],
            momentum=self._momentum[:n_layers] if self.accelerated else None,
            n_layers=self.n_layers if n_layers is None else n_layers,
            prox=self.prox,
            objective_weight=objective_weight,
            iterates=iterates,
        )

    @torch.no_grad()
    def program(self) -> Program[Tensor] | None:
        """The layers of the encoder."""
        thresholds = self.thresholds
        return Program(
            dictionary=self.dictionary,
            step=self.step.expand(self.n_layers).clone(),
            threshold=thresholds,
            momentum=self._momentum if self.accelerated else None,
            prox=self.prox,
        )

    def decode(self, codes: Tensor) -> Tensor:
        """Rebuild x^ = D z (batch, n_measurements) from codes z (batch, n_atoms)."""
        return codes @ self.dictionary.mT

    def loss(self, b: Tensor, target: Tensor | None = None) -> Tensor:
        """Loss whose derivative is the chosen gradient, mean over the batch.

        Parameters
        ----------
        b : (batch, n_measurements)
            x.
        target : (batch, n_measurements), optional
            What D z_K is to come close to, such as the clean samples where ``b`` holds noisy ones;
            ``b`` itself by default.

        Returns
        -------
        Tensor
            Scalar. The penalty of g_ae-lasso has the weight of the last layer, which counts as
            given: a learned lambda gets its gradient through the encoder only.

        Raises
        ------
        TypeError, ValueError
            If ``b`` or ``target`` does not fit.
        """
        self._check(b)
        if target is None:
            target = b
        check_shape("target", target, tuple(b.shape), "that of b")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.gradient != "dec"):
            codes = self(b)
        loss = 0.5 * (target - self.decode(codes)).square().flatten(1).sum(dim=1)
        if self.gradient == "ae-lasso":
            last = self.lam * self.layer_decay ** (self.n_layers - 1)
            loss = loss + last.detach() * codes.abs().flatten(1).sum(dim=1)
        return loss.mean()

    def _check(self, b: Tensor) -> None:
        """Require samples (batch, n_measurements)."""
        check_tensor("b", b, (2,))
        check_shape("b", b, (len(b), len(self.dictionary)), "batch, n_measurements")

    @torch.no_grad()
    def project(self) -> None:
        """Make the parameters meet their constraints; to be called after every optimiser step.

        Columns of the dictionary get a norm of at most 1, or of 1; alpha and lambda stay positive.
        """
        norms = self.dictionary.norm(dim=0)
        smallest = torch.finfo(norms.dtype).tiny
        self.dictionary.div_(norms.clamp(min=1.0 if self.constraint == "projected" else smallest))
        self.lam.clamp_(min=0.0)
        self.step.clamp_(min=smallest)
        if self.follows_dictionary:
            self._follow_dictionary()

    def _follow_dictionary(self) -> None:
        """Set alpha = 1 / ||D||_2^2."""
        self.step.detach().fill_(1.0 / lipschitz_constant(self.dictionary))

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            "n_layers": self.n_layers,
            "gradient": self.gradient,
            "prox": self.prox,
            "accelerated": self.accelerated,
            "constraint": self.constraint,
            "fixed_step": not self.follows_dictionary,
            "learn_step": self.step.requires_grad,
            "learn_lam": self.lam.requires_grad,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> PUDLE:
        """Build the network that `config` and a ``state_dict`` describe."""
        options = dict(config)
        return cls(
            state["dictionary"],
            step=float(state["step"]) if options.pop("fixed_step") else None,
            lam=float(state["lam"]),
            layer_decay=float(state["layer_decay"]),
            **options,
        )
