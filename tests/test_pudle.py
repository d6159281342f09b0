"""PUDLE: its gradients, options, constraints, schedules and exact resume."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close, assert_same_bits, dictionary
from numpy.typing import NDArray
from torch import Tensor

import fastunroll as fu
from fastunroll.dictionary import PUDLE
from fastunroll.dictionary.train import Decay, train_dictionary
from fastunroll.io import load_model, save_model

Array = NDArray[np.float64]
M, N, BATCH, LAM, STEP = 6, 10, 5, 0.3, 0.25
X = torch.randn(BATCH, M, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def make(n_layers: int = 7, **options: Any) -> PUDLE:
    return PUDLE(dictionary(M, N), n_layers, **{"lam": LAM, "step": STEP, **options})


def encode(x: Array, d: Array, thresholds: list[float], step: float, **options: Any) -> Array:
    """The encoder in NumPy, one threshold per layer."""
    prox, accelerated = options.get("prox", "soft"), options.get("accelerated", False)
    z = before = np.zeros((len(x), d.shape[1]))
    t = 1.0
    for layer, threshold in enumerate(thresholds):
        y = z
        if accelerated and layer:
            following = (1 + math.sqrt(1 + 4 * t * t)) / 2
            y, t = z + (t - 1) / following * (z - before), following
        u = y - step * (y @ d.T - x) @ d
        shrunk = {
            "soft": np.sign(u) * np.maximum(np.abs(u) - threshold, 0),
            "nonnegative": np.maximum(u - threshold, 0),
            "hard": u * (np.abs(u) > threshold),
        }[prox]
        before, z = z, shrunk
    return z


def half_squares(x: Array, d: Array, z: Array) -> float:
    return float(0.5 * np.square(x - z @ d.T).sum(axis=1).mean())


def differences(function: Callable[[Array], float], d: Array, h: float = 1e-6) -> Array:
    """Central differences of a function of the dictionary."""
    gradient = np.zeros_like(d)
    for index in np.ndindex(*d.shape):
        move = np.zeros_like(d)
        move[index] = h
        gradient[index] = (function(d + move) - function(d - move)) / (2 * h)
    return gradient


def gradient_of(model: PUDLE, x: Tensor = X) -> Tensor:
    model.zero_grad()
    model.loss(x).backward()
    assert model.dictionary.grad is not None
    return model.dictionary.grad


@pytest.mark.parametrize("decay", [1.0, 0.8])
def test_the_three_gradients_are_those_of_their_definition(decay: float) -> None:
    d, x, n_layers = dictionary(M, N).numpy(), X.numpy(), 7
    thresholds = [STEP * LAM * decay**k for k in range(n_layers)]
    held = encode(x, d, thresholds, STEP)
    assert 0.1 < (held != 0).mean() < 0.9

    def lasso(d: Array) -> float:
        z = encode(x, d, thresholds, STEP)
        return half_squares(x, d, z) + thresholds[-1] / STEP * np.abs(z).sum(axis=1).mean()

    functions: dict[str, Callable[[Array], float]] = {
        "ae-ls": lambda d: half_squares(x, d, encode(x, d, thresholds, STEP)),
        "ae-lasso": lasso,
        "dec": lambda d: half_squares(x, d, held),
    }
    found = {}
    for gradient, function in functions.items():
        model = make(n_layers, gradient=gradient, layer_decay=decay)
        found[gradient] = gradient_of(model)
        expected = torch.from_numpy(differences(function, d))
        assert_close(found[gradient], expected, 1e-7, gradient)
        assert model.loss(X).item() == pytest.approx(function(d), rel=1e-12)
    explicit = (held @ d.T - x).T @ held / BATCH
    assert_close(found["dec"], torch.from_numpy(explicit), 1e-12, "formula of g_dec")
    assert float((found["ae-ls"] - found["dec"]).abs().max()) > 1e-2
    assert float((found["ae-ls"] - found["ae-lasso"]).abs().max()) > 1e-2


@pytest.mark.parametrize("n_layers", [1, 15, 100])
@pytest.mark.parametrize(
    "options",
    [{}, {"accelerated": True}, {"prox": "hard"}, {"prox": "nonnegative"}, {"layer_decay": 0.9}],
    ids=str,
)
def test_fused_gradients_equal_the_reference(n_layers: int, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(n_layers)
    x = torch.randn(40, 20, dtype=torch.float64, generator=generator)
    hard = options.get("prox") == "hard"
    learned = {"learn_step": True, "learn_lam": not hard, "lam": 0.3, "step": 0.15, **options}

    def gradients() -> list[Tensor]:
        model = PUDLE(dictionary(20, 35), n_layers, **learned)
        model.loss(x).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    fused = gradients()
    with fu.use_backend("reference"):
        expected = gradients()
    assert len(fused) == len(expected) == 3 - hard
    for ours, theirs in zip(fused, expected, strict=True):
        assert_close(ours, theirs, 1e-9, f"{n_layers} layers")


@pytest.mark.parametrize("prox", ["soft", "nonnegative", "hard"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_the_encoder_is_the_formula(prox: str, accelerated: bool) -> None:
    model = make(9, prox=prox, accelerated=accelerated, layer_decay=0.9)
    scale = 1.0 if prox == "hard" else STEP
    thresholds = [scale * LAM * 0.9**k for k in range(9)]
    for n_layers in (None, 4):
        expected = encode(
            X.numpy(),
            dictionary(M, N).numpy(),
            thresholds[:n_layers],
            STEP,
            prox=prox,
            accelerated=accelerated,
        )
        assert 0.1 < (expected != 0).mean() < 0.9
        found = model.unroll(X, n_layers=n_layers).codes
        assert_close(found.detach(), torch.from_numpy(expected), 1e-12, "training")
        with torch.no_grad():
            found = model.eval().unroll(X, n_layers=n_layers).codes
        assert_close(found, torch.from_numpy(expected), 1e-12, "prepared")


def test_constraints() -> None:
    long = 3.0 * dictionary(M, N)
    long[:, 0] *= 0.1
    for constraint, first in (("projected", 0.3), ("normalised", 1.0)):
        norms = PUDLE(long, constraint=constraint).dictionary.norm(dim=0)
        assert norms[0].item() == pytest.approx(first)
        assert_close(norms[1:].detach(), torch.ones(N - 1, dtype=norms.dtype), 1e-12, "norms")
    model = make(learn_step=True, learn_lam=True)
    with torch.no_grad():
        model.lam.fill_(-1.0)
        model.step.fill_(-1.0)
    model.project()
    assert model.lam.item() == 0.0
    assert model.step.item() > 0.0


def test_the_default_step_follows_the_dictionary() -> None:
    model = PUDLE(dictionary(M, N), 5)
    for factor in (1.0, 0.5):
        with torch.no_grad():
            model.dictionary.mul_(factor)
        model.project()
        largest = np.linalg.norm(model.dictionary.detach().numpy(), 2)
        assert model.step.item() == pytest.approx(1 / largest**2)
    fixed = make(5)
    fixed.project()
    assert fixed.step.item() == STEP


def test_dec_needs_no_backward_pass_through_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastunroll.dictionary import pudle

    original, calls = pudle.unrolled_prox_gradient, []

    def spy(*args: Any, **options: Any) -> Any:
        calls.append(torch.is_grad_enabled())
        return original(*args, **options)

    monkeypatch.setattr(pudle, "unrolled_prox_gradient", spy)
    gradient_of(make(gradient="dec"))
    gradient_of(make(gradient="ae-ls"))
    assert calls == [False, True]


def test_save_and_load(tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [
        {"accelerated": True, "layer_decay": 0.9, "prox": "hard"},
        {"step": None, "constraint": "normalised", "gradient": "dec"},
        {"learn_step": True, "learn_lam": True, "gradient": "ae-lasso"},
    ]
    for option in options:
        model = make(**option)
        save_model(model, tmp_path / "model.safetensors")
        loaded = load_model(tmp_path / "model.safetensors")
        assert isinstance(loaded, PUDLE)
        assert loaded.config() == model.config()
        for name, tensor in model.state_dict().items():
            assert_same_bits(loaded.state_dict()[name], tensor, name)
        assert_same_bits(loaded(X), model(X), "codes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": -0.1}, "lam must be at least 0"),
        ({"step": 0.0}, "step must be greater than 0"),
        ({"layer_decay": 1.5}, "layer_decay must be at most 1"),
        ({"gradient": "ls"}, "gradient must be one of dec, ae-lasso, ae-ls"),
        ({"prox": "l0"}, "prox must be one of soft, nonnegative, hard"),
        ({"prox": "smooth"}, "prox must be one of"),
        ({"constraint": "none"}, "constraint must be one of"),
        ({"prox": "hard", "gradient": "ae-lasso"}, "it has no lasso"),
        ({"prox": "hard", "learn_lam": True}, "has no derivative in lam"),
        ({"gradient": "dec", "learn_step": True}, "does not reach the encoder"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_bad_samples() -> None:
    with pytest.raises(ValueError, match="b must have shape"):
        make().loss(X[:, :4])
    with pytest.raises(TypeError, match=r"b must be a torch\.Tensor"):
        make().loss(X.numpy())  # type: ignore[arg-type]
    assert float(gradient_of(make(), torch.zeros_like(X)).abs().max()) == 0.0


# Schedules, training and resume


def test_decay() -> None:
    decay = Decay(0.4, factor=0.5, every=10, minimum=0.15)
    assert [decay(step) for step in (0, 9, 10, 19, 20, 500)] == [0.4, 0.4, 0.2, 0.2, 0.15, 0.15]
    with pytest.raises(ValueError, match="factor must be at most 1"):
        Decay(0.4, factor=1.1)
    with pytest.raises(ValueError, match="start must be greater than 0"):
        Decay(0.0, factor=0.9)


TRUTH = dictionary(50, 60)
START = TRUTH + 0.2 * dictionary(50, 60, seed=1)


def sparse_samples(generator: torch.Generator, count: int = 64) -> Tensor:
    """Samples of the true dictionary; the non-zeros of their codes are in +-[1, 2]."""
    codes = torch.rand(count, 60, generator=generator, dtype=torch.float64) + 1
    codes *= (torch.rand(count, 60, generator=generator) < 0.05).double()
    codes *= torch.randn(count, 60, generator=generator).sign().double()
    return codes @ TRUTH.mT


def train(
    directory: Path | None = None,
    source: Callable[[torch.Generator], Tensor] = sparse_samples,
    **options: Any,
) -> PUDLE:
    model = PUDLE(START, 30, lam=0.2, constraint="normalised")
    schedules = {"lam": Decay(0.2, 0.9, every=5), "layer_decay": Decay(1.0, 0.999)}
    train_dictionary(
        model,
        source,
        30,
        **{"learning_rate": 4e-3, "validate_every": 10, "directory": directory, "progress": False}
        | schedules
        | options,
    )
    return model


def test_training_learns_keeps_the_constraint_and_follows_the_schedules() -> None:
    model = train()
    norms = model.dictionary.norm(dim=0)
    assert_close(norms.detach(), torch.ones_like(norms), 1e-12, "norms")
    assert model.lam.item() == pytest.approx(0.2 * 0.9**6)
    assert model.layer_decay.item() == pytest.approx(0.999**30)
    error, first = ((d - TRUTH).norm().item() for d in (model.dictionary, START))
    assert error < 0.5 * first


def test_adams_epsilon_is_the_one_asked_for() -> None:
    still = train(epsilon=1e9).dictionary.detach()
    assert_close(still, torch.nn.functional.normalize(START, dim=0), 1e-6, "dictionary")


@pytest.mark.parametrize("step", [1, 8, 29])
def test_resume_is_exact_to_the_bit(step: int, tmp_path: Path) -> None:
    calls = itertools.count(1)

    def interrupted(generator: torch.Generator) -> Tensor:
        if next(calls) == step:
            signal.raise_signal(signal.SIGINT)
        return sparse_samples(generator)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, interrupted)
    resumed, whole = train(tmp_path, resume=True), train()
    for name, tensor in whole.state_dict().items():
        assert_same_bits(resumed.state_dict()[name], tensor, name)


def test_a_checkpoint_with_another_schedule_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(ValueError, match="belongs to another training"):
        train(tmp_path, resume=True, layer_decay=None)


def test_a_learned_lambda_has_no_schedule() -> None:
    with pytest.raises(ValueError, match="lam must be None"):
        train_dictionary(make(learn_lam=True), sparse_samples, 1, lam=Decay(0.1, 0.9))
