"""One run of a trainer: the loop over stages and steps."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from fastunroll.io import check_state
from fastunroll.training.checkpoint import Checkpoint, Position
from fastunroll.training.distributed import Ranks
from fastunroll.training.interruption import Interruption
from fastunroll.training.logs import Log, ProgressBar, Record
from fastunroll.training.stage import Stage, only_trainable, parameter_groups

if TYPE_CHECKING:
    from fastunroll.training.trainer import Trainer


class Run:
    """State of a training between its steps, and the way from one to the next.

    Parameters
    ----------
    trainer : Trainer
        What to do.
    directory : Path, optional
        Where to write.
    resume : bool
        Start from the checkpoint in ``directory``, if there is one.

    Raises
    ------
    FileExistsError, ValueError
        As in `Trainer.fit`.
    """

    def __init__(self, trainer: Trainer[Any, Any], directory: Path | None, *, resume: bool) -> None:
        self.trainer = trainer
        self.model = trainer.model
        self.position = Position()
        self._generator = torch.Generator().manual_seed(trainer.seed)
        self._interruption = Interruption()
        self._best: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Adam | None = None
        self._optimizer_state: dict[int, Any] = {}
        self._ranks = Ranks()
        self._stopped = False
        directory = directory if self._ranks.is_first else None
        self._path = directory / "checkpoint.safetensors" if directory else None
        checkpoint = self._ranks.from_first(lambda: self._read_checkpoint(resume))
        if checkpoint is not None:
            self._restore(checkpoint)
        self.log = Log(
            directory,
            trainer.validation_name,
            tensorboard=trainer.tensorboard,
            n_records=self.position.n_records,
        )
        self.log.records = self._ranks.from_first(lambda: self.log.records)
        self._bar = ProgressBar(
            trainer.validation_name, enabled=trainer.progress and self._ranks.is_first
        )
        self._started = time.monotonic() - self.position.seconds
        self._saved = time.monotonic()

    def run(self) -> bool:
        """Train to the end (True) or to an interruption (False)."""
        training = self.model.training
        with self._interruption:
            self._bar.start()
            try:
                self.model.train()
                while self.position.stage < len(self.trainer.stages) and not self._stopped:
                    self._run_stage(self.trainer.stages[self.position.stage])
            finally:
                self.model.train(training)
                self._bar.stop()
                self.log.close()
        return self.position.stage == len(self.trainer.stages)

    def _run_stage(self, stage: Stage) -> None:
        position = self.position
        starts = position.stage_step == 0
        if starts:
            if stage.begin:
                with torch.no_grad():
                    stage.begin(self.model)
            position.rates = stage.first_rates(self.model)
        groups = parameter_groups(self.model, position.rates)
        parameters = [parameter for group in groups for parameter in group["params"]]
        self._optimizer = optimizer = torch.optim.Adam(groups, eps=stage.epsilon, fused=True)
        self._bar.begin(stage.name, position.stage_step, stage.max_steps)
        with only_trainable(self.model, parameters):
            self._call = self._ranks.parallel(self.model)
            if starts:
                self._record(stage, None)
            else:
                described = optimizer.state_dict()
                optimizer.load_state_dict({**described, "state": self._optimizer_state})
                _align(optimizer)
            while position.stage_step < stage.max_steps and not self._patience_is_over(stage):
                loss = self._step(stage, optimizer, parameters)
                position.stage_step += 1
                position.step += 1
                every = self.trainer.validate_every
                if position.stage_step % every == 0 or position.stage_step == stage.max_steps:
                    self._record(stage, loss)
                self._bar.show(position.stage_step, loss, self.log.records[-1])
                self._stopped = self._ranks.any(self._interruption.requested is not None)
                if self._stopped:
                    self._save()
                    return
                if time.monotonic() - self._saved >= self.trainer.checkpoint_seconds:
                    self._save()
        if self._best:
            self.model.load_state_dict(self._best)
        self._best, self._optimizer = {}, None
        position.stage, position.stage_step, position.best = position.stage + 1, 0, None
        self._save()

    def _step(self, stage: Stage, optimizer: torch.optim.Adam, parameters: list[Tensor]) -> float:
        """Train on one batch and return its loss."""
        step = self.position.stage_step + 1
        batch = self._ranks.part(self.trainer.source(self._generator))
        optimizer.zero_grad()
        loss = self._call(stage.loss or self.trainer.loss, batch)
        if loss.dim():
            raise ValueError(f"loss must return a scalar, got shape {tuple(loss.shape)}")
        value = self._ranks.mean(loss)
        self._check_finite("loss", value, step)
        torch.autograd.backward(loss)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        self._check_finite("gradient norm", norm.item(), step)
        if self.trainer.gradient_clip is not None:
            clip_grads_with_norm_(parameters, self.trainer.gradient_clip, norm)
        decay = stage.decay ** (self.position.stage_step / stage.max_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * decay
        optimizer.step()
        if self.trainer.after_step:
            with torch.no_grad():
                self.trainer.after_step(self.model, self.position.step + 1)
        return value

    def _record(self, stage: Stage, loss: float | None) -> None:
        """Validate, keep the weights if they are the best, and log."""
        position = self.position
        validate = stage.validate or self.trainer.validate
        validation = None
        if validate:
            self.model.eval()
            with torch.no_grad():
                validation = self._ranks.from_first(lambda: float(validate(self.model)))
            self.model.train()
            self._check_finite("validation", validation, position.stage_step)
            if position.best is None or validation < position.best or stage.keep_last:
                position.best, position.best_step = validation, position.stage_step
                state = self.model.state_dict()
                self._best = {name: tensor.clone() for name, tensor in state.items()}
        position.seconds = time.monotonic() - self._started
        self.log.append(
            Record(
                stage.name,
                position.stage_step,
                position.step,
                loss,
                validation,
                position.best,
                position.seconds,
            )
        )

    def _patience_is_over(self, stage: Stage) -> bool:
        waited = self.log.records[-1].stage_step - self.position.best_step
        return stage.patience is not None and waited >= stage.patience

    def _check_finite(self, name: str, value: float, step: int) -> None:
        if value < math.inf:  # False for NaN; -inf is a fine NMSE in dB
            return
        kept = f"; {self._path} is kept" if self._path and self._path.exists() else ""
        stage = self.trainer.stages[self.position.stage].name
        raise FloatingPointError(f"{name} is {value} at step {step} of stage {stage!r}{kept}")

    def _save(self) -> None:
        self.position.seconds = time.monotonic() - self._started
        self.position.n_records = len(self.log.records)
        if self._path:
            self.log.sync()
            Checkpoint(
                self.trainer.setup(),
                self.position,
                self.model.state_dict(),
                self._generator.get_state(),
                self._best,
                self._optimizer.state_dict()["state"] if self._optimizer else {},
            ).save(self._path)
        self._saved = time.monotonic()

    def _read_checkpoint(self, resume: bool) -> Checkpoint | None:
        """Read the checkpoint to go on from, if there is one."""
        if self._path is None or not self._path.exists():
            return None
        if not resume:
            raise FileExistsError(
                f"{self._path} is the checkpoint of an earlier training: continue it with "
                "fit(resume=True), or use another directory"
            )
        checkpoint = Checkpoint.load(self._path, self.trainer.setup())
        check_state(checkpoint.model, self.model.state_dict(), str(self._path))
        return checkpoint

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(checkpoint.model)
        self.position = checkpoint.position
        self._best = dict(checkpoint.best)
        self._optimizer_state = dict(checkpoint.optimizer)
        self._generator.set_state(checkpoint.generator)


def _align(optimizer: torch.optim.Adam) -> None:
    """Give the state that was read the strides of its parameter: the fused Adam relies on them."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)
