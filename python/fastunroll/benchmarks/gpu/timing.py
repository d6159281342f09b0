"""Times and memory on a GPU; on a CPU too, so that the benchmark can be tested without one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

Call = Callable[[int], object]
"""A candidate: does its job on the input of a given number."""

WARM_UP = 3
LEAST_SECONDS = 2e-3
"""A turn repeats its call until it takes so long: events around a short call would be the call."""


class Clock:
    """Times of calls on a device, by events on its current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._on_gpu = device.type == "cuda"

    def synchronize(self) -> None:
        """Wait for the device."""
        if self._on_gpu:
            torch.cuda.synchronize(self.device)

    @contextmanager
    def matmul_precision(self, name: str) -> Iterator[None]:
        """Let PyTorch's float32 products be ``"float32"`` or ``"tf32"``."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def seconds(self, call: Call, n_inputs: int, repeats: int) -> float:
        """Mean time of a call, over the inputs in turn."""
        if not self._on_gpu:
            start = time.perf_counter()
            for i in range(repeats):
                call(i % n_inputs)
            return (time.perf_counter() - start) / repeats
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for i in range(repeats):
            call(i % n_inputs)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / repeats

    def median(self, calls: Mapping[str, Call], n_inputs: int, rounds: int) -> dict[str, float]:
        """Median seconds of each candidate; they take turns, so that a drift meets all of them."""
        repeats = {}
        for name, call in calls.items():
            for i in range(max(WARM_UP, n_inputs)):
                call(i % n_inputs)
            self.synchronize()
            once = self.seconds(call, n_inputs, n_inputs)
            repeats[name] = max(n_inputs, math.ceil(LEAST_SECONDS / max(once, 1e-7)))
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                found[name].append(self.seconds(call, n_inputs, repeats[name]))
        return {name: statistics.median(times) for name, times in found.items()}

    def peak_bytes(self, call: Call) -> int:
        """Memory that a call takes at most beyond what is held before; 0 off the GPU."""
        if not self._on_gpu:
            return 0
        self.synchronize()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call(0)
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.device) - before


def graphed(function: Callable[..., object], inputs: tuple[torch.Tensor, ...]) -> Call:
    """The function in a CUDA graph; a call copies one row of every input's batch and replays.

    Parameters
    ----------
    function
        Of as many tensors as there are inputs.
    inputs : tensors (n_inputs, batch, ...)
    """
    places = tuple(stack[0].clone() for stack in inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function(*places)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*places)

    def replay(i: int) -> object:
        for place, stack in zip(places, inputs, strict=True):
            place.copy_(stack[i])
        graph.replay()
        return result

    return replay
