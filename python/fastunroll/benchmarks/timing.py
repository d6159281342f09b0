"""Time and memory of candidates that do the same job."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastunroll._optional import import_optional

Call = Callable[[int], object]
"""A candidate: does its job on the input of a given number."""

WARM_UP_PASSES, WARM_UP_SECONDS = 3, 1.0
"""Warm-up ends after so many passes, or after the first one that ends later than this."""

PERCENTILES = (10, 50, 90, 99)


class Timing(NamedTuple):
    """Seconds per call of one candidate."""

    rounds: list[float]
    """Median of every round."""
    percentiles: dict[str, float]
    """Of all calls, by their number in `PERCENTILES`."""

    @property
    def median(self) -> float:
        """Median of all calls."""
        return self.percentiles["50"]


class Ratio(NamedTuple):
    """A ratio of medians and the 10 % and 90 % quantiles of the ratio within single rounds."""

    median: float
    low: float
    high: float


def ratio(slow: Timing, fast: Timing) -> Ratio:
    """How many times as long ``slow`` takes as ``fast``, in rounds of one run."""
    low, high = np.quantile(np.divide(slow.rounds, fast.rounds), [0.1, 0.9])
    return Ratio(slow.median / fast.median, float(low), float(high))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch, and every BLAS and OpenMP runtime in the process, use so many threads."""
    limits = import_optional("threadpoolctl", "bench").threadpool_limits
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def interleaved(calls: Mapping[str, Call], n_inputs: int, rounds: int) -> dict[str, Timing]:
    """Time every candidate on every input in every round.

    The candidates take turns (A B C A B C ...), so that a drift of the machine meets all of them. A
    turn is one pass over the inputs; several inputs keep the processor from learning one by heart.
    """
    for call in calls.values():
        start = time.perf_counter()
        for _ in range(WARM_UP_PASSES):
            for i in range(n_inputs):
                call(i)
            if time.perf_counter() - start > WARM_UP_SECONDS:
                break
    seconds = {name: np.empty((rounds, n_inputs)) for name in calls}
    clock = time.perf_counter
    with _collector_off():
        for turn in range(rounds):
            for name, call in calls.items():
                row = seconds[name][turn]
                for i in range(n_inputs):
                    start = clock()
                    call(i)
                    row[i] = clock() - start
    return {name: _timing(found) for name, found in seconds.items()}


def fastest(calls: Mapping[str, Call], n_inputs: int, rounds: int = 5) -> str:
    """Name of the candidate with the smallest median time."""
    timings = interleaved(calls, n_inputs, rounds)
    return min(timings, key=lambda name: timings[name].median)


def _timing(seconds: Any) -> Timing:
    found = np.percentile(seconds, PERCENTILES)
    names = map(str, PERCENTILES)
    return Timing(
        np.median(seconds, axis=1).tolist(), dict(zip(names, found.tolist(), strict=True))
    )


@contextmanager
def _collector_off() -> Iterator[None]:
    """Keep Python's garbage collector out of the measurement."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def peak_memory(call: Call) -> int | None:
    """Bytes by which the process grows at most during a call, None where the system cannot tell.

    Memory that the process holds anyway is given back first; what a call keeps for the next one
    counts only the first time, so call this after a warm-up for the working set beyond that.
    """
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        reset.write_text("5")  # sets the high-water mark to what is resident now
        before = _resident(status, "VmRSS")
        call(0)
        return max(0, _resident(status, "VmHWM") - before)
    except OSError:
        return None


def _resident(status: Path, field: str) -> int:
    """A field of /proc/self/status in bytes."""
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def bytes_kept(loss: Callable[[int], Tensor], held: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps between the forward and the backward pass of the first input.

    Every storage counts once and in full; those of tensors that are ``held`` anyway, such as inputs
    and parameters, do not count. The tapes of our own operators, which are no tensors, do.
    """
    known = {t.untyped_storage().data_ptr() for t in held}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # keeps the storage, and so its address, until the loss goes

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = loss(0)
    return sum(kept.values()) + sum(int(tape.nbytes) for tape in _tapes(result))


def _tapes(result: Tensor) -> list[Any]:
    """Tapes in the graph behind a result."""
    found, todo, seen = [], [result.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "tape", None) is not None:
            found.append(getattr(node, "tape"))  # noqa: B009
        todo += [parent for parent, _ in node.next_functions]
    return found
