"""The recursion as the CUDA kernels take it: where calls run, packed matrices, a bound network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastunroll.backend import forced_precision
from fastunroll.ops.addresses import address, contiguous, parameter, rows_contiguous
from fastunroll.ops.arguments import PROX_KINDS, UnrolledArguments


class Precision(IntEnum):
    """How a product of float32 matrices is formed, in the order of the native enumeration."""

    PLAIN = 0
    SPLIT = 1
    TF32 = 2
    MIXED = 3


class Layout(IntEnum):
    """Layouts of packed matrices, in the order of the native enumeration."""

    PLAIN = 0
    SPLIT_BF16 = 1
    BF16 = 2


class Operands(NamedTuple):
    """The packed matrices of the recursion; empty tensors where not used."""

    gram: Tensor  # G
    gram_t: Tensor  # G^T
    dictionary: Tensor  # A
    dictionary_t: Tensor  # A^T
    weight: Tensor  # W
    weight_t: Tensor  # W^T
    split_dictionary_t: Tensor  # A^T and W in the layouts of the mixed precision
    bf16_weight: Tensor

    def of(self, precision: Precision) -> tuple[Tensor, ...]:
        """The six matrices that a network of this precision reads."""
        if precision is not Precision.MIXED:
            return self[:6]
        left = (self.gram, self.gram_t, self.dictionary, self.split_dictionary_t)
        return (*left, self.bf16_weight, self.weight_t)


class Kernels:
    """A native module, and the devices and streams that its calls go to.

    Parameters
    ----------
    module
        ``fastunroll._cuda``, or the same kernels compiled for the host.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._devices: dict[torch.device, Any] = {}

    @contextmanager
    def on(self, device: torch.device) -> Iterator[int]:
        """Make a device current, and tell its current stream."""
        if device.type != "cuda":
            yield 0
            return
        with torch.cuda.device(device):
            yield torch.cuda.current_stream(device).cuda_stream

    def describe(self, device: torch.device) -> Any:
        """What the plans ask of the current device, which is this one."""
        if device not in self._devices:
            self._devices[device] = self.module.describe()
        return self._devices[device]

    def check(self, error: str | None) -> None:
        """Raise what a call returned."""
        if error is not None:
            raise RuntimeError(
                f"CUDA kernel: {error} (built by nvcc {self.module.compiler} for the architectures "
                f"{self.module.architectures})"
            )

    def pack(self, matrix: Tensor, stream: int, layout: Layout = Layout.PLAIN) -> Tensor:
        """Pack (rows, cols) or (layers, rows, cols), of any strides."""
        matrix = matrix if matrix.dim() == 3 else matrix[None]
        layers, rows, cols = matrix.shape
        size = matrix.element_size()
        nbytes = self.module.packed_bytes(rows, cols, size, layout)
        packed = matrix.new_empty(layers * nbytes // size)
        double = matrix.dtype == torch.float64
        run = self.module.pack_f64 if double else self.module.pack_f32
        where = (matrix.data_ptr(), *matrix.shape, matrix.stride(), layout)
        self.check(run(*where, packed.data_ptr(), stream))
        return packed

    def pack_operands(
        self,
        gram: Tensor | None,
        dictionary: Tensor | None,
        weight: Tensor | None,
        stream: int,
        *,
        precisions: tuple[Precision, ...],
        forward: bool = True,
        backward: bool = True,
    ) -> Operands:
        """Pack the matrices that the kernels read.

        Parameters
        ----------
        gram : (layers, n, n), or None in the factored form
        dictionary : (m, n), read in the factored form
        weight : (layers, m, n), or None where W = A
        stream : the current one
        precisions : those that are to be served
        forward, backward : the passes that are to be served; the second one runs the first again
        """
        given = gram if gram is not None else dictionary
        assert given is not None
        none = given.new_empty(0)
        if gram is not None:
            plain = self.pack(gram, stream) if forward else none
            back = self.pack(gram.mT, stream) if backward else none
            return Operands(plain, back, none, none, none, none, none, none)
        assert dictionary is not None
        analysis = dictionary if weight is None else weight
        full = any(p is not Precision.MIXED for p in precisions)
        mixed = Precision.MIXED in precisions
        a_t = self.pack(dictionary.mT, stream) if full else none
        shared = weight is None and backward and full
        plain_a = self.pack(dictionary, stream) if backward else none
        return Operands(
            none,
            none,
            plain_a,
            a_t,
            (plain_a if shared else self.pack(analysis, stream)) if full else none,
            (a_t if shared else self.pack(analysis.mT, stream)) if backward else none,
            self.pack(dictionary.mT, stream, Layout.SPLIT_BF16) if mixed else none,
            self.pack(analysis, stream, Layout.BF16) if mixed else none,
        )


SPLIT_PAYS = {(8, 0), (9, 0), (10, 0), (10, 3)}
"""Compute capabilities on which three TF32 products take less time than one of float32.

By NVIDIA's data sheets their tensor cores multiply TF32 numbers at 7 times the rate of float32 or
more; those of graphics cards at the same rate or twice."""


def precision_of(a: UnrolledArguments, device: Any) -> Precision:
    """The precision that is in force, for these arguments on a device of the native module."""
    chosen = forced_precision()
    if chosen == "auto":
        allowed = torch.backends.cuda.matmul.fp32_precision
        chosen = "tf32" if allowed == "tf32" else "float32"
    if a.threshold.dtype == torch.float64:
        return Precision.PLAIN
    if chosen == "tf32":
        return Precision.TF32
    if chosen == "mixed" and a.gram is None:
        return Precision.MIXED
    return Precision.SPLIT if (device.major, device.minor) in SPLIT_PAYS else Precision.PLAIN


class Bound:
    """A native network together with the tensors that its pointers belong to."""

    def __init__(self, kernels: Kernels, a: UnrolledArguments, precision: Precision) -> None:
        rows = [contiguous(t) for t in (a.linear, a.measurements, a.initial, a.previous)]
        layer = [contiguous(t) for t in (a.rule_weight, a.rule_bias, a.momentum, a.prox_shape)]
        step, threshold = rows_contiguous(a.step), rows_contiguous(a.threshold)
        bypass = _counts(a)
        factored = a.gram is None
        dictionary = a.dictionary if factored else None
        weight = dictionary if a.weight is None else a.weight
        matrices = (a.gram, a.gram, dictionary, dictionary, weight, weight)
        self.arguments, self.precision = a, precision
        self.keep_alive: list[Any] = [rows, layer, step, threshold, bypass]
        double = a.threshold.dtype == torch.float64
        make = kernels.module.Network_f64 if double else kernels.module.Network_f32
        self.network = make(
            (a.batch, 0 if dictionary is None else dictionary.shape[0], a.n_atoms, a.n_layers),
            tuple(map(address, matrices)),
            a.gram is not None and a.gram.shape[0] > 1,
            factored and a.weight is not None and a.weight.shape[0] > 1,
            tuple(map(address, rows)),
            a.linear is not None and a.linear.shape[0] > 1,
            *parameter(step),
            *parameter(threshold),
            tuple(map(address, layer)),
            a.rule_minimum,
            a.rule_maximum,
            address(bypass),
            PROX_KINDS.index(a.prox),
            a.skip,
            a.heavy_ball,
            precision,
        )

    def place(self, packed: Operands) -> None:
        """Let the network read packed matrices."""
        matrices = packed.of(self.precision)
        self.keep_alive.append(matrices)
        self.network.place_matrices(tuple(map(address, matrices)))


def _counts(a: UnrolledArguments) -> Tensor | None:
    """Counts of support selection (K,) on the device, without a copy from the host."""
    if not any(a.bypass):
        return None
    counts = torch.zeros(a.n_layers, dtype=torch.int64, device=a.threshold.device)
    torch._foreach_add_(list(counts.unbind()), list(a.bypass))
    return counts
