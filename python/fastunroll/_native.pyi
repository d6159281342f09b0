"""Stubs of the native module: addresses are integers, 0 for null; calls return a status.

Only the engines take NumPy arrays, and return None for those that do not fit.
"""

from typing import Any

block_bytes: int

class Tape:
    def __init__(self) -> None: ...
    @property
    def nbytes(self) -> int: ...

class Problem_f32:
    def __init__(
        self,
        sizes: tuple[int, int, int, int],
        matrices: tuple[int, ...],
        gram_per_layer: bool,
        weight_per_layer: bool,
        layers: tuple[int, ...],
        layer_strides: tuple[tuple[int, int, int], ...],
        rows: tuple[int, ...],
        linear_per_layer: bool,
        step: int,
        step_strides: tuple[int, int, int],
        threshold: int,
        threshold_strides: tuple[int, int, int],
        layer: tuple[int, ...],
        rule_minimum: float,
        rule_maximum: float,
        bypass: tuple[int, ...],
        prox: int,
        skip: bool,
        heavy_ball: bool,
        with_objective: bool,
        objective_weight: float,
        /,
    ) -> None: ...
    def forward(
        self, codes: int, objective: int, iterates: int, tape: Tape | None, threads: int, /
    ) -> int: ...
    def backward(
        self,
        tape: Tape | None,
        incoming: tuple[int, ...],
        outgoing: tuple[int, ...],
        n_grams: int,
        n_weights: int,
        threads: int,
        /,
    ) -> int: ...

class Problem_f64(Problem_f32): ...

class Engine_f32:
    def __init__(self, problem: Problem_f32, parallel_batch: int, threads: int, /) -> None: ...
    def status(self) -> int: ...
    def run(self, b: object, out: object, /) -> Any: ...
    def run_rows(self, batch: int, b: int, codes: int, threads: int, /) -> int: ...

class Engine_f64(Engine_f32): ...

def pack_f32(
    source: int, layers: int, rows: int, cols: int, strides: tuple[int, ...], target: int, /
) -> bool: ...
def pack_f64(
    source: int, layers: int, rows: int, cols: int, strides: tuple[int, ...], target: int, /
) -> bool: ...
def multiply_f32(*args: int) -> int: ...
def multiply_f64(*args: int) -> int: ...
def gram_f32(*args: int) -> int: ...
def gram_f64(*args: int) -> int: ...
def shrink_f32(*args: int) -> int: ...
def shrink_f64(*args: int) -> int: ...
def shrink_backward_f32(*args: int) -> int: ...
def shrink_backward_f64(*args: int) -> int: ...
def build_info() -> dict[str, Any]: ...
def prefer_huge_pages(start: int, nbytes: int) -> None: ...
