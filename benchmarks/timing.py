"""Times and memory of candidates that do the same job."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, ...]
Call = Callable[..., object]

WARM_UP_PASSES = 3


class Ratio(NamedTuple):
    """A ratio of medians and the 10 % and 90 % quantiles of the ratio within single rounds."""

    median: float
    low: float
    high: float


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep Python's garbage collector out of the measurement."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def interleaved(
    calls: Mapping[str, Call], batches: Sequence[Batch], rounds: int
) -> dict[str, list[float]]:
    """Seconds per call of every candidate in every round.

    The candidates take turns (A B C A B C ...), so that a drift of the machine meets all of them. A
    turn is one pass over the batches; several batches keep the processor from learning one sample
    by heart.
    """
    for call in calls.values():
        for _ in range(WARM_UP_PASSES):
            for batch in batches:
                call(*batch)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with collector_off():
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                for batch in batches:
                    call(*batch)
                seconds[name].append((time.perf_counter() - start) / len(batches))
    return seconds


def fastest(calls: Mapping[str, Call], batches: Sequence[Batch], rounds: int = 5) -> str:
    """Name of the candidate with the smallest median time."""
    seconds = interleaved(calls, batches, rounds)
    return min(seconds, key=lambda name: float(np.median(seconds[name])))


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """How many times as long ``slow`` takes as ``fast``, from the rounds of one run."""
    low, high = np.quantile(np.divide(slow, fast), [0.1, 0.9])
    return Ratio(float(np.median(slow) / np.median(fast)), float(low), float(high))


def bytes_kept(loss: Call, batch: Batch, parameters: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps between the forward and the backward pass.

    Every storage counts once and in full; those of the parameters and of the batch do not count.
    The tapes of our own operators, which are no tensors, do.
    """
    given = {t.untyped_storage().data_ptr() for t in (*parameters, *batch)}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # keeps the storage, and so its address, until the loss goes

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = loss(*batch)
    total = sum(kept.values()) + sum(tape.nbytes for tape in tapes(result))
    del result
    return total


def tapes(result: Tensor) -> list[Any]:
    """Tapes in the graph behind a result."""
    found, todo, seen = [], [result.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "tape", None) is not None:
            found.append(node.tape)
        todo += [parent for parent, _ in node.next_functions]
    return found
