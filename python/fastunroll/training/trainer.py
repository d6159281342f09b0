"""The trainer: what to train, on what, and where to keep it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int
from fastunroll.training.checkpoint import describe_model
from fastunroll.training.logs import Record
from fastunroll.training.run import Run
from fastunroll.training.stage import Stage

Model = TypeVar("Model", bound=nn.Module)
Batch = TypeVar("Batch")


class TrainingResult(NamedTuple):
    """What a training did; the trained model is the one it was given."""

    validation: float | None
    """Validation of the finished model: the best, or the last, one of the last stage."""
    records: list[Record]
    """Every validation, in order."""
    n_steps: int
    """Steps over all stages."""
    seconds: float
    """Training time, over all parts of an interrupted training."""
    finished: bool
    """False if a signal stopped it before its end."""


@dataclass
class Trainer(Generic[Model, Batch]):
    """Train a model in stages, on fresh data in every step, with Adam.

    A stage starts with a fresh Adam and ends after ``max_steps`` or when its patience is over; the
    model then takes back the best weights of the stage, unless the stage keeps the last. A training
    with a ``directory`` can be stopped at any moment, by Ctrl-C, SIGTERM or a crash, and goes on
    with ``fit(resume=True)``: it ends with the same weights, bit for bit, as one that was never
    stopped. The same ``seed`` gives the same weights on one machine for one number of threads.

    Parameters
    ----------
    model : nn.Module
        Trained in place.
    source : callable
        ``source(generator)`` returns the batch of one step. All its randomness must come from the
        ``torch.Generator``, on the CPU; that is what makes a resume exact.
    loss : callable
        ``loss(model, batch)`` returns a scalar tensor.
    stages : sequence of Stage
        Run one after the other.
    validate : callable, optional
        ``validate(model)`` returns a number, lower is better; it is called without gradients. The
        last weights of a stage count as its best without it.
    validation_name : str
        How to show that number, for instance ``"NMSE (dB)"``.
    validate_every : int
        Steps between two validations; each is one record of the log.
    after_step : callable, optional
        ``after_step(model, step)`` is called after every step of the optimizer, for instance to
        project the parameters or to move a schedule; ``step`` counts over all stages, from 1.
    gradient_clip : float, optional
        Largest l2 norm of the gradient.
    seed : int
        Seed of the generator.
    data : str
        Says which data and which loss these are; a checkpoint with another text is refused.
    directory : path, optional
        Where to keep ``checkpoint.safetensors`` and ``log.csv``; nothing is written without it.
    checkpoint_seconds : float
        Seconds between two checkpoints; 0 writes one after every step. There is always one at the
        end of a stage and at an interruption.
    tensorboard : bool
        Write TensorBoard events, too (extra ``tensorboard``).
    progress : bool
        Show a progress bar, if standard error is a terminal (extra ``cli``).

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.
    ModuleNotFoundError
        If TensorBoard is asked for but not installed.

    Examples
    --------
    >>> stage = Stage(name="all", max_steps=2000, learning_rate=1e-2, patience=500)
    >>> trainer = Trainer(model, source, loss, [stage], validate=validate, directory="run")
    >>> result = trainer.fit(resume=True)
    """

    model: Model
    source: Callable[[torch.Generator], Batch]
    loss: Callable[[Model, Batch], Tensor]
    stages: Sequence[Stage]
    validate: Callable[[Model], float] | None = field(default=None, kw_only=True)
    validation_name: str = field(default="validation", kw_only=True)
    validate_every: int = field(default=10, kw_only=True)
    after_step: Callable[[Model, int], None] | None = field(default=None, kw_only=True)
    gradient_clip: float | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    data: str = field(default="", kw_only=True)
    directory: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    checkpoint_seconds: float = field(default=30.0, kw_only=True)
    tensorboard: bool = field(default=False, kw_only=True)
    progress: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        check_positive_int("validate_every", self.validate_every)
        check_number("checkpoint_seconds", self.checkpoint_seconds, minimum=0.0)
        if self.gradient_clip is not None:
            check_number("gradient_clip", self.gradient_clip, minimum=0.0, exclusive=True)
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"stages must hold stages with different names, got {names}")
        for stage in self.stages:
            stage.first_rates(self.model)
            if stage.patience is not None and not (stage.validate or self.validate):
                raise ValueError(f"validate must be given: stage {stage.name!r} has a patience")
        if self.tensorboard and self.directory is None:
            raise ValueError("directory must be given: tensorboard writes there")
        if self.tensorboard and find_spec("tensorboard") is None:
            raise ModuleNotFoundError(
                "tensorboard=True needs the extra: pip install 'fastunroll[tensorboard]'"
            )
        self._described_model = describe_model(self.model)

    def fit(self, *, resume: bool = False) -> TrainingResult:
        """Train, or go on with an interrupted training.

        Parameters
        ----------
        resume : bool
            Go on from the checkpoint in ``directory``; start anew if there is none.

        Returns
        -------
        TrainingResult

        Raises
        ------
        FileExistsError
            If ``directory`` holds a checkpoint and ``resume`` is False: nothing is overwritten.
        ValueError
            If the checkpoint is damaged or belongs to another training.
        FloatingPointError
            If loss, gradient or validation are not finite; the last checkpoint is kept.
        KeyboardInterrupt
            After Ctrl-C, when the step has ended and the checkpoint is written.
        """
        if resume and self.directory is None:
            raise ValueError("directory must be given: resume reads the checkpoint there")
        run = Run(self, None if self.directory is None else Path(self.directory), resume=resume)
        finished = run.run()
        position, records = run.position, run.log.records
        validation = records[-1].best if records else None
        return TrainingResult(validation, records, position.step, position.seconds, finished)

    def setup(self) -> dict[str, Any]:
        """All that decides the course of the training and that JSON can hold."""
        return {
            **self._described_model,
            "data": self.data,
            "seed": self.seed,
            "validate_every": self.validate_every,
            "gradient_clip": self.gradient_clip,
            **{
                f"stage {number}": {
                    "name": stage.name,
                    "max_steps": stage.max_steps,
                    "patience": stage.patience,
                    "learning rates": list(stage.learning_rates().items()),
                    "decay": stage.decay,
                    "epsilon": stage.epsilon,
                    "relative": stage.relative,
                    "keep_last": stage.keep_last,
                }
                for number, stage in enumerate(self.stages, start=1)
            },
        }
