"""How to train LPG-Net so that it reaches a small error: layer by layer, then all layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastunroll.losses import lpg_loss
from fastunroll.nn import LPGNet
from fastunroll.training import Stage, Trainer, TrainingResult


class Examples(NamedTuple):
    """Measurements ``(batch, n_measurements)`` and what the estimate is compared with."""

    measurements: Tensor
    target: Tensor


@dataclass(frozen=True)
class Recipe:
    """Length and weights of a training.

    Trained end to end from the start, the network stays at an error several dB above what layer by
    layer training reaches: the last layers fix their thresholds before the first ones are any good.

    Attributes
    ----------
    batch : int
        Samples per step, fresh ones in every step.
    growth_steps : int
        Steps after each new layer, all layers so far being trained.
    steps : int
        Steps with all layers; the last two thirds with a smaller learning rate.
    learning_rate : float
        Adam's, falling to a tenth in three stages.
    beta, gamma : float
        Weights of the penalties in `lpg_loss`: rising objective, and size of the parameters.
    """

    batch: int = 64
    growth_steps: int = 40
    steps: int = 1800
    learning_rate: float = 2e-2
    beta: float = 0.1
    gamma: float = 1e-4


def absolute_error(codes: Tensor, target: Tensor) -> Tensor:
    """||x_K - x*||_1: summed over the atoms, mean over the batch."""
    return (codes - target).abs().sum(dim=1).mean()


def train_lpg_net(
    network: LPGNet,
    source: Callable[[torch.Generator], Examples],
    error: Callable[[Tensor, Tensor], Tensor],
    validation: Examples,
    recipe: Recipe,
    *,
    objective_weight: float,
    seed: int = 0,
    progress: bool = False,
    directory: Path | None = None,
    tensorboard: bool = False,
) -> TrainingResult:
    """Train a network in place.

    Parameters
    ----------
    network : LPGNet
        With the initial values of `LPGNet.from_dictionary`.
    source : callable
        Gives the examples of one step.
    error : callable
        ``error(codes, target)``: the scalar to minimise, the penalties of `lpg_loss` being added.
        The best weights of each stage are chosen by its value on ``validation``.
    validation : Examples
        Not seen in training.
    recipe : Recipe
    objective_weight : float
        lambda of the objective F in the penalty.
    seed : int
    progress : bool
        Show a progress bar.
    directory : Path, optional
        Where to keep checkpoint and log; an interrupted training goes on from there.
    tensorboard : bool
        Write TensorBoard events to the directory, too.

    Returns
    -------
    TrainingResult
    """

    def loss_of(n_layers: int) -> Callable[[LPGNet, Examples], Tensor]:
        def loss(model: LPGNet, batch: Examples) -> Tensor:
            b = batch.measurements
            result = model.unroll(b, objective_weight=objective_weight, n_layers=n_layers)
            assert result.objective is not None
            thresholds = model.thresholds[:n_layers]
            # Compared with themselves, the codes have no error, and the penalties are left.
            penalties = lpg_loss(
                result.codes,
                result.codes,
                result.objective,
                model.steps(b, n_layers=n_layers) if recipe.gamma else thresholds,
                thresholds,
                beta=recipe.beta,
                gamma=recipe.gamma,
            )
            return error(result.codes, batch.target) + penalties

        return loss

    def validate_of(n_layers: int) -> Callable[[LPGNet], float]:
        def validate(model: LPGNet) -> float:
            codes = model.unroll(validation.measurements, n_layers=n_layers).codes
            return float(error(codes, validation.target))

        return validate

    growth = [
        Stage(
            name=f"layers 1 to {k}",
            max_steps=recipe.growth_steps,
            learning_rate=recipe.learning_rate,
            loss=loss_of(k),
            validate=validate_of(k),
        )
        for k in range(1, network.n_layers + 1)
    ]
    final = [
        Stage(
            name=f"all layers, rate / {divisor}",
            max_steps=max(1, recipe.steps // 3),
            learning_rate=recipe.learning_rate / divisor,
        )
        for divisor in (1, 3, 10)
    ]
    depth = network.n_layers
    trainer = Trainer(
        network,
        source,
        loss_of(depth),
        growth + final,
        validate=validate_of(depth),
        validation_name="error",
        validate_every=50,
        gradient_clip=1.0,
        seed=seed,
        progress=progress,
        directory=directory,
        tensorboard=tensorboard,
    )
    return trainer.fit(resume=directory is not None)
