"""One stage of a training: which parameters, which learning rate, for how long."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from fastunroll._checks import check_number, check_positive_int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training, run with a fresh Adam.

    A layer-wise training is a list of stages: the new layer alone, all layers so far, all layers so
    far with a smaller learning rate, then the next layer.

    Attributes
    ----------
    name : str
        Shown in logs and messages; no two stages of a training share one.
    max_steps : int
        Most steps.
    learning_rate : float
        Learning rate of Adam.
    decay : float
        Ratio of the learning rate after ``max_steps`` to the first one; it falls geometrically.
    epsilon : float
        Adam's epsilon.
    relative : bool
        Learning rates count in units of the root mean square of each parameter at the start of the
        stage, rounded to a power of two. A parameter of zeros has the unit 1.
    parameters : sequence of str or mapping of str to float, optional
        Names of the parameters to train, as in ``model.named_parameters()``; ``*`` and ``?`` match
        as in a shell. A mapping gives each its own learning rate. All by default. Parameters that
        require no gradient are never trained.
    patience : int, optional
        Stop after so many steps without a better validation.
    keep_last : bool
        End with the last weights, not with those of the best validation. That is better where
        failures are too rare for the validation samples to show them.
    begin : callable, optional
        ``begin(model)`` is called before the first step, for instance to set initial values.
    loss, validate : callable, optional
        Used in this stage in place of the trainer's, for instance to look at the first layers only.

    Raises
    ------
    TypeError, ValueError
        With the name of the attribute that does not fit.
    """

    name: str
    max_steps: int
    learning_rate: float = 1e-3
    decay: float = 1.0
    epsilon: float = 1e-8
    relative: bool = False
    parameters: Sequence[str] | Mapping[str, float] | None = None
    patience: int | None = None
    keep_last: bool = False
    begin: Callable[[Any], None] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None
    validate: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        check_positive_int("max_steps", self.max_steps)
        for rate in self.learning_rates().values():
            check_number("learning_rate", rate, minimum=0.0, exclusive=True)
        check_number("decay", self.decay, minimum=0.0, exclusive=True)
        check_number("epsilon", self.epsilon, minimum=0.0, exclusive=True)
        if self.patience is not None:
            check_positive_int("patience", self.patience)

    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each pattern of parameter names."""
        if isinstance(self.parameters, Mapping):
            return dict(self.parameters)
        if isinstance(self.parameters, str):
            raise TypeError(f"parameters must be a list of names, got {self.parameters!r}")
        names = ("*",) if self.parameters is None else self.parameters
        return dict.fromkeys(names, self.learning_rate)

    def first_rates(self, model: nn.Module) -> dict[str, float]:
        """First learning rate of each parameter to train, by name, in a fixed order.

        Raises
        ------
        ValueError
            If a pattern matches no trainable parameter, or two match the same.
        """
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        rates: dict[str, float] = {}
        for pattern, rate in self.learning_rates().items():
            names = [name for name in trainable if fnmatchcase(name, pattern)]
            if not names:
                raise ValueError(
                    f"stage {self.name!r}: parameters {pattern!r} matches no trainable parameter; "
                    f"there are {', '.join(trainable) or 'none'}"
                )
            if twice := rates.keys() & set(names):
                raise ValueError(
                    f"stage {self.name!r}: parameters {pattern!r} matches what an earlier pattern "
                    f"matches: {', '.join(sorted(twice))}"
                )
            for name in names:
                rates[name] = rate * (_magnitude(trainable[name]) if self.relative else 1.0)
        return rates


def _magnitude(parameter: Tensor) -> float:
    """Root mean square, rounded to a power of two: so a few groups serve many parameters."""
    size = float(parameter.detach().double().square().mean().sqrt())
    return 2.0 ** round(math.log2(size)) if size else 1.0


def parameter_groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Groups for the optimizer: ``params`` that share an ``lr``."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, rate in rates.items():
        groups.setdefault(rate, []).append(model.get_parameter(name))
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate}
        for rate, parameters in groups.items()
    ]


@contextmanager
def only_trainable(model: nn.Module, chosen: Sequence[nn.Parameter]) -> Iterator[None]:
    """Compute no gradient for the other parameters inside a ``with`` block."""
    kept = {id(p) for p in chosen}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in kept]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
