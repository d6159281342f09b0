"""Training of a network for sparse recovery in one call."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from fastunroll._checks import check_choice, check_number, check_positive_int
from fastunroll.data.benchmark import BenchmarkProblem
from fastunroll.data.seeds import stream_seed
from fastunroll.data.synthetic import SparseBatch
from fastunroll.losses import lasso_loss, supervised_loss
from fastunroll.metrics import nmse_db
from fastunroll.nn.alista import ALISTA
from fastunroll.nn.layered import LayeredNetwork
from fastunroll.nn.lista import LISTA
from fastunroll.nn.lista_cp import LISTACP
from fastunroll.training.layerwise import (
    SHARED_CLIP,
    Loss,
    Measure,
    end_to_end_phase,
    end_to_end_stage,
    fast_phases,
    joint_phase,
    layerwise_stages,
    shared_phase,
)
from fastunroll.training.stage import Stage
from fastunroll.training.trainer import Trainer, TrainingResult

BUDGETS = {"quick": 150, "full": 3000}
"""Steps per layer of the named budgets."""

SCHEDULES = ("layerwise", "end-to-end", "deep-supervision")
LOSSES = ("supervised", "lasso")

_NEARLY_HARD = 1.5
"""Shape of the firm shrinkage that stands in for the hard threshold."""

_FLOOR = 1e-12
"""Added to squared errors, so that the logarithm of an exact result has a value and a slope."""


def log_error(codes: Tensor, batch: SparseBatch) -> Tensor:
    """NMSE of a batch in dB, 10 log10(sum ||x - x*||^2 / sum ||x*||^2): the supervised loss.

    Its gradient does not shrink with the error, and a batch with one bad sample weighs no more than
    others. That favours the many samples; `squared_error` favours the few bad ones.
    """
    error = supervised_loss(codes, batch.codes) + _FLOOR
    energy = batch.codes.square().sum(dim=1).mean() + _FLOOR
    return 10 * torch.log10(error / energy)


def squared_error(codes: Tensor, batch: SparseBatch) -> Tensor:
    """Mean of ||x - x*||^2 over a batch: it weighs the few bad samples of a batch most."""
    return supervised_loss(codes, batch.codes)


def train_recovery(
    model: LayeredNetwork,
    problem: BenchmarkProblem,
    *,
    schedule: str = "layerwise",
    loss: str = "supervised",
    lam: float = 0.4,
    budget: str | int = "quick",
    batch_size: int = 64,
    seed: int = 0,
    directory: str | os.PathLike[str] | None = None,
    progress: bool = True,
    tensorboard: bool = False,
) -> TrainingResult:
    """Train a network in place on fresh samples of a benchmark problem.

    LISTA-CP and LISTA with matrices of every layer contain ALISTA, which learns 2K numbers quickly:
    the layer-wise schedule trains one first, in half of the steps, hands it over, and trains all
    layers of the network itself at once in the other half. For LIHT, whose hard threshold cannot be
    learned by its slope, that ALISTA has the firm shrinkage, which is nearly hard.

    For all others, it spends half of its steps on `fast_phases` and the other half on all layers at
    once. A network that learns single numbers only, such as ALISTA, is then trained with the
    squared error, and keeps its last weights: samples rarer than one in a thousand rule the NMSE,
    which neither `log_error` nor the validation samples show. A network with matrices keeps
    `log_error` and its best weights, since rare samples would throw its many numbers about. A
    network whose layers share all they learn, such as NA-ALISTA, is trained at once.

    Parameters
    ----------
    model : LayeredNetwork
        With the dictionary of the problem.
    problem : BenchmarkProblem
        Its ``validation`` samples choose the weights to keep; ``test`` is not looked at.
    schedule : {"layerwise", "end-to-end", "deep-supervision"}
        See `fastunroll.training.layerwise`.
    loss : {"supervised", "lasso"}
        The error of the codes, `log_error` and perhaps `squared_error`, or the objective of the
        LASSO, which needs no true codes.
    lam : float
        lambda of the LASSO.
    budget : {"quick", "full"} or int
        Steps per layer; see `BUDGETS`. All schedules take as many steps in all.
    batch_size : int
        Samples per step.
    seed : int
        Of the samples, at least 0 and less than 2^30.
    directory : path, optional
        Where to keep checkpoint and log; an interrupted training goes on from there.
    progress : bool
        Show a progress bar on a terminal.
    tensorboard : bool
        Write TensorBoard events to the directory, too.

    Returns
    -------
    TrainingResult
        Its ``validation`` is the NMSE in dB, or the mean objective.

    Raises
    ------
    TypeError, ValueError
        With the name of the argument that does not fit.

    Examples
    --------
    >>> problem = make_benchmark()
    >>> model = ALISTA(problem.dictionary, support_selection=SupportSelection())
    >>> result = train_recovery(model, problem)
    """
    if not isinstance(model, LayeredNetwork):
        raise TypeError(f"model must be a LayeredNetwork, got {type(model).__name__}")
    check_choice("schedule", schedule, SCHEDULES)
    check_choice("loss", loss, LOSSES)
    check_positive_int("batch_size", batch_size)
    steps = _steps(budget)
    function, measure, name = _loss(loss, problem, check_number("lam", lam, minimum=0.0))
    if not torch.equal(model.dictionary, problem.dictionary):
        raise ValueError("model must be made with problem.dictionary, and has another dictionary")
    training = problem.training
    started: TrainingResult | None = None
    if schedule == "layerwise" and isinstance(model, LISTA | LISTACP) and _contains_alista(model):
        hard = model.prox == "hard"
        start = ALISTA(
            problem.dictionary,
            model.n_layers,
            lam=model.lam,
            prox="firm" if hard else model.prox,
            prox_shape=_NEARLY_HARD if hard else model.prox_shape,
            support_selection=None if hard else model.support_selection,
        )
        started = train_recovery(
            start,
            problem,
            loss=loss,
            lam=lam,
            budget=max(3, steps - steps // 2),
            batch_size=batch_size,
            seed=seed,
            directory=None if directory is None else Path(directory) / "start",
            progress=progress,
            tensorboard=tensorboard,
        )
        if not started.finished:
            return started
        model.take_over(start)
    trainer = Trainer(
        model,
        lambda generator: training.sample(batch_size, generator),
        lambda network, batch: function(network(batch.measurements), batch),
        _stages(model, schedule, steps, function, measure, problem.validation, started is not None),
        validation_name=name,
        validate_every=min(50, max(1, steps // 3)),
        data=f"{problem.checksum}, batches of {batch_size}, {loss} loss",
        seed=stream_seed(seed, "training"),
        directory=directory,
        progress=progress,
        tensorboard=tensorboard,
        gradient_clip=None if model.layer_parameters(0) else SHARED_CLIP,
    )
    result = trainer.fit(resume=directory is not None)
    if started is None:
        return result
    return result._replace(
        n_steps=started.n_steps + result.n_steps, seconds=started.seconds + result.seconds
    )


def _contains_alista(model: LayeredNetwork) -> bool:
    """Whether a network can take over an ALISTA."""
    shared = isinstance(model, LISTA) and (model.tied or model.shared_input)
    return isinstance(model, LISTA | LISTACP) and not shared


def _steps(budget: str | int) -> int:
    """Steps per layer."""
    if isinstance(budget, str):
        return BUDGETS[check_choice("budget", budget, tuple(BUDGETS))]
    if check_positive_int("budget", budget) < 3:
        raise ValueError(f"budget must be at least 3 steps per layer, got {budget}")
    return budget


def _loss(loss: str, problem: BenchmarkProblem, lam: float) -> tuple[Loss, Measure, str]:
    """What to minimise, what to watch, and its name."""
    if loss == "supervised":
        return log_error, lambda codes, batch: nmse_db(codes, batch.codes), "NMSE (dB)"

    def objective(codes: Tensor, batch: SparseBatch) -> Tensor:
        return lasso_loss(codes, batch.measurements, problem.dictionary, lam)

    return objective, lambda codes, batch: float(objective(codes, batch)), "objective"


def _stages(
    model: LayeredNetwork,
    schedule: str,
    steps: int,
    loss: Loss,
    measure: Measure,
    held_out: SparseBatch,
    starts_as_alista: bool,
) -> list[Stage]:
    n_layers, learns = model.n_layers, bool(model.layer_parameters(0))
    if starts_as_alista:
        phase = joint_phase(max(1, steps // 2) * n_layers)
        return [end_to_end_stage(model, loss, measure, held_out, phase)]
    if schedule == "layerwise" and learns:
        alone = max(3, steps - steps // 2)
        stages = layerwise_stages(model, loss, measure, held_out, fast_phases(alone))
        if steps > alone:
            phase = joint_phase((steps - alone) * n_layers)
            few = all(p.dim() == 0 for p in model.parameters() if p.requires_grad)
            last = squared_error if few and loss is log_error else loss
            stages.append(end_to_end_stage(model, last, measure, held_out, phase, keep_last=few))
        return stages
    phase = (end_to_end_phase if learns else shared_phase)(steps * n_layers)
    deep = schedule == "deep-supervision"
    return [end_to_end_stage(model, loss, measure, held_out, phase, deep_supervision=deep)]
