"""Training of a dictionary, with schedules of lambda and exact resume."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastunroll._checks import check_number, check_positive_int
from fastunroll.dictionary.pudle import PUDLE
from fastunroll.training import Stage, Trainer, TrainingResult


@dataclass(frozen=True)
class Decay:
    """A number that falls as training goes: max(minimum, start * factor^(step // every)).

    Attributes
    ----------
    start : float
        Value of step 0, positive.
    factor : float
        In (0, 1].
    every : int
        Steps between two changes.
    minimum : float
        Lowest value, at least 0.

    Raises
    ------
    TypeError, ValueError
        With the name of the attribute that does not fit.
    """

    start: float
    factor: float
    every: int = 1
    minimum: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_number("start", self.start, minimum=0.0, exclusive=True)
        if check_number("factor", self.factor, minimum=0.0, exclusive=True) > 1:
            raise ValueError(f"factor must be at most 1, got {self.factor:g}")
        check_positive_int("every", self.every)
        check_number("minimum", self.minimum, minimum=0.0)

    def __call__(self, step: int) -> float:
        """Value at a step."""
        return max(self.minimum, self.start * self.factor ** (step // self.every))


def train_dictionary(
    model: PUDLE,
    source: Callable[[torch.Generator], Tensor | tuple[Tensor, Tensor]],
    n_steps: int,
    *,
    learning_rate: float = 1e-3,
    learning_rate_decay: float = 1.0,
    epsilon: float = 1e-8,
    lam: Decay | None = None,
    layer_decay: Decay | None = None,
    validate: Callable[[PUDLE], float] | None = None,
    validation_name: str = "validation",
    validate_every: int = 100,
    keep_last: bool = False,
    seed: int = 0,
    data: str = "",
    directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    progress: bool = True,
) -> TrainingResult:
    """Learn a dictionary with Adam; after each step the columns meet their constraint again.

    Parameters
    ----------
    model : PUDLE
        Trained in place.
    source : callable
        ``source(generator)`` returns the samples (batch, n_measurements) of one step, such as an
        `ArraySource`; or samples and what they are to be decoded to, such as `NoisyCrops`.
    n_steps : int
        Number of steps.
    learning_rate, learning_rate_decay, epsilon : float
        Adam's learning rate, its ratio after ``n_steps`` to the first one, and Adam's epsilon.
    lam, layer_decay : Decay, optional
        How lambda, and its decay beta from layer to layer, fall as training goes. They stay as they
        are in the model by default.
    validate, validation_name, validate_every, seed, directory, checkpoint_seconds, progress
        See `fastunroll.training.Trainer`. With ``validate`` the best dictionary is kept.
    keep_last : bool
        Keep the last one all the same.
    data : str
        Says what the samples are drawn from; a checkpoint with another text is refused.
    resume : bool
        Go on from the checkpoint in ``directory``; start anew if there is none. The result is that
        of a training that was never stopped, bit for bit.

    Returns
    -------
    TrainingResult

    Raises
    ------
    TypeError, ValueError, FileExistsError, FloatingPointError
        See `fastunroll.training.Trainer`; ValueError if a lambda is to be both learned and
        scheduled.
    """
    if lam is not None and model.lam.requires_grad:
        raise ValueError("lam must be None: the model learns it")

    def schedule(model: PUDLE, step: int) -> None:
        if lam is not None:
            model.lam.fill_(lam(step))
        if layer_decay is not None:
            model.layer_decay.fill_(layer_decay(step))

    def after_step(model: PUDLE, step: int) -> None:
        model.project()
        schedule(model, step)

    def loss(model: PUDLE, batch: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return model.loss(batch) if isinstance(batch, Tensor) else model.loss(*batch)

    schedules = f"lambda {lam}, layer decay {layer_decay}"
    with torch.no_grad():
        schedule(model, 0)
    stage = Stage(
        name="dictionary",
        max_steps=n_steps,
        learning_rate=learning_rate,
        decay=learning_rate_decay,
        epsilon=epsilon,
        keep_last=keep_last,
    )
    trainer = Trainer(
        model,
        source,
        loss,
        [stage],
        validate=validate,
        validation_name=validation_name,
        validate_every=validate_every,
        after_step=after_step,
        seed=seed,
        data=f"{data}, {schedules}" if data else schedules,
        directory=directory,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    return trainer.fit(resume=resume)
