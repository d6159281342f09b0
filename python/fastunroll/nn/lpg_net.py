r"""LPG-Net: proximal gradient with a learned, per-sample step.

One layer computes

    r_k = A x_k - b,   s_k = ||A^T r_k||_2
    alpha_k = alpha_min + (alpha_max - alpha_min) sigmoid(w_k s_k + c_k)
    tau_k = softplus(theta_k)
    x_{k+1} = S_{tau_k}(x_k - alpha_k A^T r_k)

and learns w_k, c_k and theta_k. Source: Wang, Xu, Zhang, "A Learnable Proximal Gradient Unrolling
Network for Sparse Learning".
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fastunroll._checks import check_dictionary, check_number, check_positive_int, check_tensor
from fastunroll.analysis.spectral import lipschitz_constant
from fastunroll.functional import UnrolledResult, unrolled_prox_gradient
from fastunroll.layers import GradientNormStep
from fastunroll.nn.network import UnrolledNetwork, versions
from fastunroll.program import Program

_SHORTEST_STEP, _LONGEST_STEP = 0.02, 2.0
"""Default range of the step, in units of 1/L, or of 1 / max_j ||a_j||^2."""

_THRESHOLD_DECAY = 5.0
"""Ratio of the first and the last initial threshold."""


class LPGNet(UnrolledNetwork):
    """LPG-Net: a dictionary that is kept, and 3K learned numbers.

    Parameters
    ----------
    dictionary : (n_measurements, n_atoms)
        A, float32 or float64; copied.
    n_layers : int
        K.
    adaptive_step : bool
        False fixes w_k = 0, so that all samples share the step of a layer (ablation; 2K learned
        numbers).
    shared_threshold : bool
        True uses one threshold in all layers (ablation; 2K + 1 learned numbers).
    initial_threshold : float
        First threshold tau_0. The others fall geometrically to a fifth of it; a shared one starts
        at their geometric mean.
    step_range : (float, float), optional
        (alpha_min, alpha_max). By default (0.02, 2) / L with L = ||A||_2^2, the limit of stability:
        so all layers can be trained at once.
    initial_step : float, optional
        alpha to start from, within the range. By default 1/L, that of ISTA, or the middle of a
        given range.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Warns
    -----
    UserWarning
        If a given ``step_range`` leaves (0, 2/L): the objective may then rise.

    Notes
    -----
    The third ablation, without the monotonicity penalty, is a matter of the loss: ``beta=0`` in
    `fastunroll.losses.lpg_loss`.
    """

    dictionary: Tensor

    def __init__(
        self,
        dictionary: Tensor,
        n_layers: int = 20,
        *,
        adaptive_step: bool = True,
        shared_threshold: bool = False,
        initial_threshold: float = 0.5,
        step_range: tuple[float, float] | None = None,
        initial_step: float | None = None,
    ) -> None:
        super().__init__()
        dictionary = check_dictionary("dictionary", dictionary).detach().clone()
        n_layers = check_positive_int("n_layers", n_layers)
        check_number("initial_threshold", initial_threshold, minimum=0.0, exclusive=True)
        low, first, high = _steps(dictionary, step_range, initial_step)
        if step_range is not None:
            _warn_of_long_steps(low, high, dictionary)
        self.step_range = (low, high)
        self.adaptive_step, self.shared_threshold = adaptive_step, shared_threshold
        self.register_buffer("dictionary", dictionary)
        weight = dictionary.new_zeros(n_layers)
        self.step_weight = nn.Parameter(weight, requires_grad=adaptive_step)
        self.step_bias = nn.Parameter(
            torch.full_like(weight, math.log((first - low) / (high - first)))
        )
        decay = torch.linspace(0, 1, n_layers, dtype=torch.float64)
        if shared_threshold:
            decay = decay.mean(dim=0, keepdim=True)
        thresholds = initial_threshold * _THRESHOLD_DECAY**-decay
        self.threshold_raw = nn.Parameter(thresholds.expm1().log().to(dictionary.dtype))

    @classmethod
    def from_dictionary(
        cls, dictionary: Tensor, measurements: Tensor | None = None, **options: Any
    ) -> LPGNet:
        """Build a network with initial values that suit the data, to be trained layer by layer.

        Unless ``step_range`` is given, it is (0.02, 2) / max_j ||a_j||^2, or from 1 / (2 L) on if
        that is less, and alpha starts at 1 / max_j ||a_j||^2: 2 / max_j ||a_j||^2 is the limit of
        stability for codes of one non-zero, as 2/L is for dense ones. In trials, networks that may
        take such steps needed fewer layers and trained to a smaller error; but where all layers
        were trained at once from the start, their codes grew without bound. Use the constructor
        then.

        Parameters
        ----------
        dictionary : (n_measurements, n_atoms)
            A.
        measurements : (batch, n_measurements), optional
            Examples of b, finite and not all zero. The first threshold becomes a quarter of the
            initial step times the median of ||A^T b||_inf, the threshold above which the first
            layer returns 0, over those that are not zero. Without examples it is 0.5, which suits
            non-zeros of unit variance.
        **options
            Other arguments of the constructor.

        Raises
        ------
        TypeError, ValueError
            With the name of the argument that does not fit.
        """
        dictionary = check_dictionary("dictionary", dictionary)
        long_steps = options.get("step_range") is None
        if long_steps:
            unit = 1.0 / float(dictionary.square().sum(dim=0).max())
            shortest = min(_SHORTEST_STEP * unit, 0.5 / lipschitz_constant(dictionary))
            options["step_range"] = (shortest, _LONGEST_STEP * unit)
            if options.get("initial_step") is None:
                options["initial_step"] = unit
        if measurements is not None:
            b = check_tensor("measurements", measurements, (2,))
            if b.numel() == 0 or b.shape[1] != dictionary.shape[0]:
                raise ValueError(
                    f"measurements must be (batch, {dictionary.shape[0]}) with batch of at least "
                    f"1, got shape {tuple(b.shape)}"
                )
            largest = (b @ dictionary).abs().amax(dim=1)
            largest = largest[largest > 0].median()  # NaN of none
            if not bool(torch.isfinite(b).all() and torch.isfinite(largest)):
                raise ValueError("measurements must be finite and not all zero")
            _, step, _ = _steps(dictionary, options.get("step_range"), options.get("initial_step"))
            options.setdefault("initial_threshold", float(step * largest) / 4)
        return (cls._without_warning if long_steps else cls)(dictionary, **options)

    @property
    def n_layers(self) -> int:
        """Number of layers K."""
        return self.step_bias.shape[0]

    @property
    def thresholds(self) -> Tensor:
        """tau_k: (n_layers,)."""
        return softplus(self.threshold_raw).expand(self.n_layers)

    def unroll(
        self,
        b: Tensor,
        *,
        objective_weight: float | None = None,
        iterates: bool = False,
        n_layers: int | None = None,
    ) -> UnrolledResult:
        """Run the first ``n_layers`` layers, all by default.

        See `fastunroll.unrolled_prox_gradient` for the other arguments.
        """
        dictionary, step, threshold = self._derive(
            lambda: (
                self._prepare(self.dictionary),
                GradientNormStep(self.step_weight, self.step_bias, *self.step_range),
                self.thresholds.contiguous(),
            ),
            lambda: (
                versions((self.dictionary, self.step_weight, self.step_bias)),
                self.threshold_raw.tolist(),
            ),
        )
        if n_layers is not None:
            step = replace(step, weight=step.weight[:n_layers], bias=step.bias[:n_layers])
            threshold = threshold[:n_layers]
        return unrolled_prox_gradient(
            b,
            dictionary,
            step=step,
            threshold=threshold,
            objective_weight=objective_weight,
            iterates=iterates,
        )

    def program(self) -> Program[Tensor]:
        """The layers with their step rule."""
        low, high = self.step_range
        return Program(
            threshold=self.thresholds,
            dictionary=self.dictionary,
            rule_weight=self.step_weight,
            rule_bias=self.step_bias,
            rule_minimum=low,
            rule_maximum=high,
        )

    def steps(self, b: Tensor, *, n_layers: int | None = None) -> Tensor:
        """alpha_k of every sample: (n_layers, batch), or (n_layers,) for 1-D measurements.

        It is differentiable in w_k and c_k at the gradient norms s_k of this batch, which count as
        given: so the penalty gamma sum_k alpha_k^2 of the loss costs one more forward pass and
        keeps no iterate for the backward pass.
        """
        with torch.no_grad():
            iterates = self.unroll(b, iterates=True, n_layers=n_layers).iterates
            assert iterates is not None
            direction = (iterates[:-1] @ self.dictionary.mT - b) @ self.dictionary
            norms = direction.norm(dim=-1)
        low, high = self.step_range
        shape = (-1,) + (1,) * (norms.dim() - 1)
        weight = self.step_weight[:n_layers].reshape(shape)
        bias = self.step_bias[:n_layers].reshape(shape)
        return low + (high - low) * torch.sigmoid(weight * norms + bias)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that JSON can hold."""
        return {
            "n_layers": self.n_layers,
            "adaptive_step": self.adaptive_step,
            "shared_threshold": self.shared_threshold,
            "step_range": list(self.step_range),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], state: dict[str, Tensor]) -> LPGNet:
        """Build the network that `config` and a ``state_dict`` describe."""
        return cls._without_warning(
            state["dictionary"],
            config["n_layers"],
            adaptive_step=config["adaptive_step"],
            shared_threshold=config["shared_threshold"],
            step_range=tuple(config["step_range"]),
        )

    @classmethod
    def _without_warning(cls, *arguments: Any, **options: Any) -> LPGNet:
        """Build a network whose steps may be long on purpose."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return cls(*arguments, **options)


def _steps(
    dictionary: Tensor, step_range: tuple[float, float] | None, initial_step: float | None
) -> tuple[float, float, float]:
    """Shortest, initial and longest step, from the arguments of the constructor."""
    if step_range is None:
        first = 1.0 / lipschitz_constant(dictionary)
        low, high = _SHORTEST_STEP * first, _LONGEST_STEP * first
    else:
        low, high = step_range
        low = check_number("step_range[0]", low, minimum=0.0)
        high = check_number("step_range[1]", high, minimum=low, exclusive=True)
        first = (low + high) / 2
    if initial_step is not None:
        first = check_number("initial_step", initial_step, minimum=low, exclusive=True)
        if first >= high:
            raise ValueError(f"initial_step must be less than {high:g}, got {first:g}")
    return low, first, high


def _warn_of_long_steps(low: float, high: float, dictionary: Tensor) -> None:
    """Warn if the range of the step leaves (0, 2/L)."""
    lipschitz = lipschitz_constant(dictionary)
    if high > 2.0 / lipschitz:
        warnings.warn(
            f"step_range = ({low:g}, {high:g}) leaves (0, 2/L) = (0, {2.0 / lipschitz:g}) with "
            f"L = ||A||_2^2 = {lipschitz:g}; the objective may rise",
            UserWarning,
            stacklevel=3,
        )
