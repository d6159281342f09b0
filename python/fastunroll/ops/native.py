"""What all callers of the native module share: its arguments, its errors, the layout of matrices.

Nothing here knows torch or NumPy: an array is told by its address, its shape and its strides in
elements. So `fastunroll.ops.cpu` and `fastunroll.runtime` call the same kernels in the same way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastunroll import _native
from fastunroll.ops.arguments import PROX_KINDS

_SERIAL_WORK = 1 << 18
"""Multiply-adds below which starting threads costs more than it saves."""

_HUGE_PAGE = 1 << 21

_ERRORS: dict[int, tuple[type[Exception], str]] = {
    1: (ValueError, "step must be positive and finite"),
    2: (ValueError, "threshold must be finite and not negative"),
    3: (ValueError, "momentum must be finite"),
    4: (ValueError, "step.weight and step.bias must be finite"),
    5: (MemoryError, "not enough memory for the working buffers of the recursion"),
    6: (ValueError, "prox_shape must be finite and greater than 1 (firm) or 2 (scad)"),
    7: (ValueError, "gram, or the dictionary or weight that it is made of, contains NaN or Inf"),
    8: (ValueError, "weight contains NaN or Inf"),
}


class Parameter(NamedTuple):
    """An array of three axes: address, and strides that are 0 on shared axes."""

    address: int = 0
    strides: tuple[int, int, int] = (0, 0, 0)


def parameter(address: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Parameter:
    """Tell the kernels of a (K, 1 or B, 1 or n) array."""
    layer, sample, atom = strides
    return Parameter(address, (layer, sample if shape[1] > 1 else 0, atom if shape[2] > 1 else 0))


def make_problem(
    itemsize: int,
    sizes: tuple[int, int, int, int],
    packed: tuple[int, ...],
    *,
    gram_per_layer: bool,
    weight_per_layer: bool,
    layers: tuple[Parameter, Parameter] = (Parameter(), Parameter()),
    step: Parameter,
    threshold: Parameter,
    layer: tuple[int, ...],
    rule_range: tuple[float, float],
    bypass: tuple[int, ...],
    prox: str,
    skip: bool,
    heavy_ball: bool,
    rows: tuple[int, ...] = (0, 0, 0, 0),
    linear_per_layer: bool = False,
    objective_weight: float | None = None,
    adaptive: tuple[int, int] = (0, 0),
) -> Any:
    """Bind the arguments of the recursion, `fastunroll.ops.arguments`, to a native problem.

    Parameters
    ----------
    itemsize : int
        Bytes of a number: 4 or 8.
    sizes : (B, m, n, K)
    packed : addresses of G, G^T, A^T, W and W^T in the kernels' layout
    layers : G and W of every layer where they are not packed; the kernels pack them, then
    layer : addresses of the rule's weight and bias, of the momentum and of the prox shape
    adaptive : addresses of the error scale and of the selection of adaptive layers, or zeros
    rows : addresses of c, b, x_0 and x_{-1}
    """
    make = _native.Problem_f64 if itemsize == 8 else _native.Problem_f32
    return make(
        sizes,
        packed,
        gram_per_layer,
        weight_per_layer,
        tuple(matrices.address for matrices in layers),
        tuple(matrices.strides for matrices in layers),
        rows,
        linear_per_layer,
        *step,
        *threshold,
        (*layer, *adaptive),
        *rule_range,
        bypass,
        PROX_KINDS.index(prox),
        skip,
        heavy_ball,
        objective_weight is not None,
        objective_weight or 0.0,
    )


def packed_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, int, int, int]:
    """Shape in the kernels' layout of matrices (layers, rows, cols).

    It is (layers, blocks, rows, columns of a block). One block of a chunk of rows is contiguous, so
    it stays in the L1 cache while all samples of a tile use it.
    """
    layers, rows, cols = shape
    columns = _native.block_bytes // itemsize
    return (layers, -(-cols // columns), rows, columns)


def room(nbytes: int) -> int:
    """Bytes to ask for so that packed matrices of ``nbytes`` can begin at a huge page."""
    if nbytes < _HUGE_PAGE // 4:
        return nbytes
    return -(-nbytes // _HUGE_PAGE) * _HUGE_PAGE + _HUGE_PAGE


def begin(address: int, nbytes: int) -> int:
    """Bytes from ``address``, where there is `room`, to where the packed matrices shall begin."""
    if room(nbytes) == nbytes:
        return 0
    offset = -address % _HUGE_PAGE
    _native.prefer_huge_pages(address + offset, room(nbytes) - _HUGE_PAGE)
    return offset


def pack(
    itemsize: int,
    source: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    target: int,
    name: str,
) -> None:
    """Pack matrices (layers, rows, cols) of any strides into memory of `packed_shape`.

    Raises
    ------
    ValueError
        If the matrix, called ``name``, contains NaN or Inf.
    """
    run = _native.pack_f64 if itemsize == 8 else _native.pack_f32
    layers, rows, cols = shape
    if not run(source, layers, rows, cols, strides, target):
        raise ValueError(f"{name} contains NaN or Inf")


def multiply(
    itemsize: int, rows: int, packed: int, sizes: tuple[int, int, int, int], out: int, threads: int
) -> None:
    """Multiply rows (B, m) by packed matrices (L, m, n) into (L, B, n); ``sizes`` is (L, B, m, n).

    A row's result does not depend on its batch or on the threads.
    """
    run = _native.multiply_f64 if itemsize == 8 else _native.multiply_f32
    layers, batch, m, n = sizes
    check(run(rows, batch, packed, layers, m, n, out, threads_for(layers * batch * m * n, threads)))


def gram(
    itemsize: int,
    dictionary_t: int,
    dictionary: int,
    shape: tuple[int, int],
    out: int,
    threads: int,
) -> None:
    """Write A^T A (n, n), packed, of a packed matrix A (m, n), given A^T, packed, too."""
    run = _native.gram_f64 if itemsize == 8 else _native.gram_f32
    m, n = shape
    check(run(dictionary_t, dictionary, m, n, out, threads_for(m * n * n, threads)))


def work_per_sample(n_layers: int, m: int, n: int) -> int:
    """Multiply-adds of one sample at a typical density, for `threads_for`."""
    return n_layers * n * (n + m) // 4


def threads_for(work: int, available: int) -> int:
    """Number of threads for a number of multiply-adds."""
    return 1 if work < _SERIAL_WORK else available


def make_engine(itemsize: int, problem: Any, work_per_sample: int, threads: int) -> Any:
    """Make a native engine of a bound problem; its ``run(b, out)`` takes NumPy arrays.

    Raises
    ------
    ValueError
        If a step, a threshold, the momentum or the rule has a value that is not allowed.
    """
    make = _native.Engine_f64 if itemsize == 8 else _native.Engine_f32
    engine = make(problem, -(-_SERIAL_WORK // work_per_sample), threads)
    check(engine.status())
    return engine


def check(status: int) -> None:
    """Raise the error of a native status; 0 is none."""
    if status:
        error, message = _ERRORS[status]
        raise error(message)
