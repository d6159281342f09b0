"""Schedules: layer by layer, and all layers at once with or without deep supervision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastunroll.data.synthetic import SparseBatch
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.training.stage import Stage

Loss = Callable[[Tensor, SparseBatch], Tensor]
"""``loss(codes, batch)``: scalar to minimise, of the codes after some layer."""

Measure = Callable[[Tensor, SparseBatch], float]
"""``measure(codes, batch)``: number to watch, lower is better."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What is done with each new layer, one phase after the other; see `Stage` for the terms.

    Attributes
    ----------
    name : str
    steps : int
        Most steps.
    rate : float
        Learning rate of steps, thresholds and other single numbers.
    matrix_rate : float
        Learning rate of all larger parameters.
    new_layer_only : bool
        Train the parameters of the new layer, and not all up to it.
    decay, relative, patience
        As in `Stage`.
    """

    name: str
    steps: int
    rate: float
    matrix_rate: float
    new_layer_only: bool = False
    decay: float = 1.0
    relative: bool = False
    patience: int | None = None


PUBLISHED = (
    Phase(
        name="new layer",
        steps=200_000,
        rate=5e-4,
        matrix_rate=5e-4,
        new_layer_only=True,
        patience=4000,
    ),
    Phase(name="layers so far", steps=200_000, rate=1e-4, matrix_rate=1e-4, patience=4000),
    Phase(name="fine tuning", steps=200_000, rate=1e-5, matrix_rate=1e-5, patience=4000),
)
"""The schedule of Chen, Liu, Wang, Yin (2018), with absolute learning rates; it takes hours."""


_MATRIX_FACTOR = 0.05
"""Learning rate of matrices in units of that of single numbers; they start close to their best."""


def fast_phases(steps: int) -> tuple[Phase, ...]:
    """Phases of `layerwise_stages` that need far fewer steps than `PUBLISHED`.

    Thresholds fall by a factor of 100 from the first layer to the last, so no absolute learning
    rate suits them all; these count in units of each parameter, and serve every network.

    Parameters
    ----------
    steps : int
        Steps per layer, at least 3.

    Returns
    -------
    tuple of Phase
    """
    third = steps // 3
    return (
        _relative("new layer", third, 0.1, 0.05, new_layer_only=True),
        _relative("layers so far", third, 0.03, 0.1),
        _relative("fine tuning", steps - 2 * third, 3e-3, 0.1),
    )


def end_to_end_phase(steps: int) -> Phase:
    """Phase for `end_to_end_stage` of an untrained network; ``steps`` are its steps."""
    return _relative("all layers", steps, 0.03, 0.01)


def shared_phase(steps: int) -> Phase:
    """Phase for `end_to_end_stage` of a network whose layers share all, such as NA-ALISTA.

    With `SHARED_CLIP`; with rates of 1e-3 and more, or without the limit, the recurrent network of
    NA-ALISTA was thrown off in trials, and did not recover.
    """
    return Phase(name="all layers", steps=steps, rate=5e-4, matrix_rate=5e-4, decay=0.01)


SHARED_CLIP = 1.0
"""Largest norm of the gradient in `shared_phase`."""


def joint_phase(steps: int) -> Phase:
    """Phase for `end_to_end_stage` after all stages of `layerwise_stages`.

    In a trial with ALISTA and support selection (m = 250, n = 500, 16 layers, no noise), 600 steps
    per layer came to -66.5 dB on 10 000 test samples. 2000 steps of this phase from there came to
    -73.5 dB with the squared error and the last weights, to -66.5 dB with the logarithm of it.
    """
    return _relative("all layers", steps, 0.01, 0.03)


def _relative(
    name: str, steps: int, rate: float, decay: float, *, new_layer_only: bool = False
) -> Phase:
    return Phase(
        name=name,
        steps=steps,
        rate=rate,
        matrix_rate=_MATRIX_FACTOR * rate,
        decay=decay,
        relative=True,
        new_layer_only=new_layer_only,
    )


def layerwise_stages(
    model: LayeredNetwork,
    loss: Loss,
    measure: Measure,
    held_out: SparseBatch,
    phases: Sequence[Phase],
    *,
    copy_layers: bool = True,
) -> list[Stage]:
    """Train the first layer, then the first two, and so on, each through all phases.

    While a layer is trained alone, those before it run without a gradient. Trained all at once from
    the start with the absolute learning rates of `PUBLISHED`, networks of this family are reported
    to stay 30 to 50 dB above what this reaches; with the relative ones of `end_to_end_phase`, the
    gap was below 1 dB in a trial with ALISTA, m = 50, n = 100 and 12 layers.

    Parameters
    ----------
    model : LayeredNetwork
    loss : callable
        ``loss(codes, batch)``, for the codes after the last layer of the stage.
    measure : callable
        ``measure(codes, held_out)``, likewise; the weights with its lowest value are kept.
    held_out : SparseBatch
        Samples to validate on.
    phases : sequence of Phase
        `fast_phases`, or `PUBLISHED`.
    copy_layers : bool
        A new layer starts with the values of the one before it.

    Returns
    -------
    list of Stage
        For `Trainer`, in order.
    """
    stages = []
    for layer in range(model.n_layers):
        new = model.layer_parameters(layer)
        so_far = [name for k in range(layer + 1) for name in model.layer_parameters(k)]
        so_far += model.shared_parameters()
        begin = _copy(layer) if copy_layers and layer else None
        for phase in phases:
            rates = _rates(model, new if phase.new_layer_only else so_far, phase)
            if not rates:
                continue  # of a network that shares all it learns
            stages.append(
                Stage(
                    name=f"layer {layer + 1}, {phase.name}",
                    max_steps=phase.steps,
                    parameters=rates,
                    decay=phase.decay,
                    relative=phase.relative,
                    patience=phase.patience,
                    begin=begin,
                    loss=_loss(loss, layer + 1),
                    validate=_validate(measure, held_out, layer + 1),
                )
            )
            begin = None
    return stages


def end_to_end_stage(
    model: LayeredNetwork,
    loss: Loss,
    measure: Measure,
    held_out: SparseBatch,
    phase: Phase,
    *,
    deep_supervision: bool = False,
    keep_last: bool = False,
) -> Stage:
    """Train all layers at once, with the loss of the last one or the mean over all layers.

    Parameters
    ----------
    model, loss, measure, held_out
        As in `layerwise_stages`.
    phase : Phase
        Its ``new_layer_only`` does not matter.
    deep_supervision : bool
        Mean of the loss of every layer.
    keep_last : bool
        As in `Stage`.

    Returns
    -------
    Stage
    """

    def deep(model: LayeredNetwork, batch: SparseBatch) -> Tensor:
        iterates = model.unroll(batch.measurements, iterates=True).iterates
        assert iterates is not None
        return torch.stack([loss(codes, batch) for codes in iterates[1:]]).mean()

    names = [name for name, p in model.named_parameters() if p.requires_grad]
    return Stage(
        name=phase.name,
        max_steps=phase.steps,
        parameters=_rates(model, names, phase),
        decay=phase.decay,
        relative=phase.relative,
        patience=phase.patience,
        keep_last=keep_last,
        loss=deep if deep_supervision else _loss(loss, model.n_layers),
        validate=_validate(measure, held_out, model.n_layers),
    )


def _rates(model: LayeredNetwork, names: Sequence[str], phase: Phase) -> dict[str, float]:
    parameters = dict(model.named_parameters())
    return {
        name: phase.matrix_rate if parameters[name].dim() > 1 else phase.rate
        for name in names
        if parameters[name].requires_grad
    }


def _copy(layer: int) -> Callable[[LayeredNetwork], None]:
    def begin(model: LayeredNetwork) -> None:
        # A first layer that starts from zero codes has no matrix for them to hand on.
        before = {name.rpartition(".")[0]: name for name in model.layer_parameters(layer - 1)}
        for target in model.layer_parameters(layer):
            if source := before.get(target.rpartition(".")[0]):
                model.get_parameter(target).copy_(model.get_parameter(source))

    return begin


def _loss(loss: Loss, n_layers: int) -> Callable[[LayeredNetwork, SparseBatch], Tensor]:
    return lambda model, batch: loss(
        model.unroll(batch.measurements, n_layers=n_layers).codes, batch
    )


def _validate(
    measure: Measure, held_out: SparseBatch, n_layers: int
) -> Callable[[LayeredNetwork], float]:
    return lambda model: measure(
        model.unroll(held_out.measurements, n_layers=n_layers).codes, held_out
    )
