"""Stubs of the module of CUDA kernels: addresses and streams are integers, 0 for null.

Calls return None, or an error message.
"""

compiler: str
architectures: str

class Device:
    multiprocessors: int
    shared_bytes: int
    cluster_blocks: int
    major: int
    minor: int

    def __init__(
        self,
        multiprocessors: int,
        shared_bytes: int,
        cluster_blocks: int,
        major: int,
        minor: int,
        /,
    ) -> None: ...

class Plan:
    path: int
    samples: int
    grid: int
    chunk: int
    workspace: int

class Network_f32:
    def __init__(
        self,
        sizes: tuple[int, int, int, int],
        matrices: tuple[int, ...],
        gram_per_layer: bool,
        weight_per_layer: bool,
        rows: tuple[int, ...],
        linear_per_layer: bool,
        step: int,
        step_strides: tuple[int, int, int],
        threshold: int,
        threshold_strides: tuple[int, int, int],
        layer: tuple[int, ...],
        rule_minimum: float,
        rule_maximum: float,
        bypass: int,
        prox: int,
        skip: bool,
        heavy_ball: bool,
        precision: int,
        /,
    ) -> None: ...
    def place_matrices(self, matrices: tuple[int, ...], /) -> None: ...
    def plan_forward(self, device: Device, /) -> Plan: ...
    def forward(
        self, codes: int, iterates: int, plan: Plan, workspace: int, stream: int, /
    ) -> str | None: ...
    def plan_backward(
        self,
        incoming: tuple[int, ...],
        outgoing: tuple[int, ...],
        n_grams: int,
        n_weights: int,
        device: Device,
        budget: int,
        /,
    ) -> Plan: ...
    def backward(
        self,
        incoming: tuple[int, ...],
        outgoing: tuple[int, ...],
        n_grams: int,
        n_weights: int,
        plan: Plan,
        workspace: int,
        stream: int,
        /,
    ) -> str | None: ...
    def extrapolate(
        self, layer: int, codes: int, previous: int, y: int, stream: int, /
    ) -> str | None: ...
    def layer_forward(self, layer: int, arrays: tuple[int, ...], stream: int, /) -> str | None: ...
    def layer_backward_workspace(self) -> int: ...
    def layer_backward(
        self,
        layer: int,
        arrays: tuple[int, ...],
        gradients: tuple[int, ...],
        workspace: int,
        stream: int,
        /,
    ) -> str | None: ...

class Network_f64(Network_f32): ...

def pack_f32(
    source: int,
    layers: int,
    rows: int,
    cols: int,
    strides: tuple[int, ...],
    layout: int,
    target: int,
    stream: int,
    /,
) -> str | None: ...
def pack_f64(
    source: int,
    layers: int,
    rows: int,
    cols: int,
    strides: tuple[int, ...],
    layout: int,
    target: int,
    stream: int,
    /,
) -> str | None: ...
def packed_bytes(rows: int, cols: int, element_bytes: int, layout: int, /) -> int: ...
def shrink(
    dtype: int,
    u: int,
    sizes: tuple[int, int, int, int],
    threshold: int,
    prox: int,
    out: int,
    stream: int,
    /,
) -> str | None: ...
def shrink_backward_workspace(
    dtype: int, sizes: tuple[int, int, int, int], prox: int, /
) -> int: ...
def shrink_backward(
    dtype: int,
    u: int,
    sizes: tuple[int, int, int, int],
    threshold: int,
    prox: int,
    grad: int,
    grad_u: int,
    grad_threshold: int,
    workspace: int,
    stream: int,
    /,
) -> str | None: ...
def describe() -> Device: ...
