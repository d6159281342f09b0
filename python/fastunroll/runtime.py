"""Inference with NumPy alone: a saved network as a function of arrays, without torch.

    engine = fastunroll.runtime.load("model.safetensors")
    codes = engine(measurements)

The results equal those of the network in torch on the CPU, bit for bit; up to rounding for
AdaLISTA, HyperLISTA and SmoothLISTA, which do more outside the kernels there.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastunroll import planner
from fastunroll._files import NO_PROGRAM, PROGRAM, read_file
from fastunroll._scalars import check_choice, check_number, check_positive_int
from fastunroll.ops import native
from fastunroll.ops.arguments import LEAST_SHAPES, PROX_KINDS, SELECTIVE
from fastunroll.program import Program

Array = NDArray[Any]


def load(path: str | os.PathLike[str], *, n_threads: int = 1) -> Engine:
    """Load a network that `fastunroll.io.save_model` wrote.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file.
    n_threads : int
        See `Engine`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or foreign, or if its network has layers that the engine does not
        know; the message names what they do.
    """
    arrays, description = read_file(path, "np")
    if PROGRAM not in description:
        model, reason = description.get("model"), description.get(NO_PROGRAM)
        why = f", for {model} {reason}" if model and reason else ""
        raise ValueError(
            f"{path} holds no program for the engine{why}; "
            "fastunroll.io.load_model() loads any network"
        )
    try:
        told = description[PROGRAM]
        fields = {field: arrays[name] for field, name in told["arrays"].items()}
        options = {**told["options"], "bypass": tuple(told["options"]["bypass"])}
        program: Program[Array] = Program(**fields, **options)
        return Engine(program, n_threads=n_threads)
    except KeyError as error:
        raise ValueError(f"{path}: the program needs {error}, which the file lacks") from error


class Engine:
    """A network bound to the kernels once, for many calls.

    Any number of Python threads may call it at the same time; the GIL is released meanwhile.
    Working memory is kept from call to call, one piece for each call that runs at the same time.

    Parameters
    ----------
    program : Program of NumPy arrays
        What the layers compute; it is copied.
    n_threads : int
        Threads that one call may use. Small batches run on one; no result depends on it.

    Raises
    ------
    TypeError, ValueError
        With the name of the array or option that does not fit.

    Attributes
    ----------
    n_measurements, n_atoms, n_layers : int
        m, n and K.
    dtype : numpy.dtype
        Of measurements and codes: float32 or float64.
    """

    def __init__(self, program: Program[Array], *, n_threads: int = 1) -> None:
        self.n_threads = check_positive_int("n_threads", n_threads)
        p = _checked(program)
        self.dtype, self.n_layers = p.threshold.dtype, len(p.threshold)
        size = self.dtype.itemsize
        weight = p.weight if p.weight is not None else p.dictionary
        assert weight is not None
        _, self.n_measurements, self.n_atoms = weight.shape
        gram = p.gram
        if gram is None:
            assert p.dictionary is not None
            if planner.plan_prepared(weight.shape[1:], len(weight)).form == "gram":
                wide = (array.astype(np.float64) for array in (p.dictionary[0].T, weight))
                gram = _multiply(*wide).astype(self.dtype)
        packed = {"weight": _pack(weight, "weight")}
        if gram is not None:
            packed["gram"] = _pack(gram, "gram")
        else:
            assert p.dictionary is not None
            packed["dictionary_t"] = _pack(p.dictionary.transpose(0, 2, 1), "dictionary")
        layer = (p.rule_weight, p.rule_bias, p.momentum, p.prox_shape)
        self._code_scale = p.code_scale
        self._kept = (packed, p)  # the engine points into these
        problem = native.make_problem(
            size,
            (1, self.n_measurements, self.n_atoms, self.n_layers),
            tuple(
                _address(packed.get(name))
                for name in ("gram", "gram_t", "dictionary_t", "weight", "weight_t")
            ),
            gram_per_layer=gram is not None and len(gram) > 1,
            weight_per_layer=len(weight) > 1,
            step=_parameter(p.step),
            threshold=_parameter(p.threshold),
            layer=tuple(_address(array) for array in layer),
            rule_range=(p.rule_minimum, p.rule_maximum),
            bypass=p.bypass,
            prox=p.prox,
            skip=p.skip,
            heavy_ball=p.heavy_ball,
            adaptive=(_address(p.error_scale), _address(p.selection)),
        )
        work = native.work_per_sample(self.n_layers, self.n_measurements, self.n_atoms)
        self._run = native.make_engine(size, problem, work, self.n_threads).run

    def __call__(self, b: Array, *, out: Array | None = None) -> Array:
        """Compute the codes x_K of measurements.

        Parameters
        ----------
        b : (batch, n_measurements) or (n_measurements,)
            Measurements, of the network's dtype.
        out : (batch, n_atoms) or (n_atoms,), optional
            Where to write the codes: C-contiguous, and apart from ``b``.

        Returns
        -------
        ndarray
            (batch, n_atoms) or (n_atoms,): ``out``, if it is given.

        Raises
        ------
        TypeError, ValueError
            With the name of the argument that does not fit.
        """
        codes: Array | None = self._run(b, out)
        if codes is None:
            self._check_call(b, out)
            codes = self._run(np.require(b, requirements=["C", "A"]), out)
            if codes is None:
                raise ValueError("out must not share memory with b")
        if self._code_scale is not None:
            codes /= self._code_scale
        return codes

    def _check_call(self, b: object, out: object) -> None:
        b = _check_array("b", b, self.dtype)
        if b.ndim not in (1, 2) or b.shape[-1] != self.n_measurements:
            raise ValueError(
                f"b must be (batch, {self.n_measurements}) or ({self.n_measurements},), "
                f"got shape {b.shape}"
            )
        if out is None:
            return
        out = _check_array("out", out, self.dtype)
        if out.shape != (*b.shape[:-1], self.n_atoms):
            raise ValueError(
                f"out must have shape {(*b.shape[:-1], self.n_atoms)} to fit b, got {out.shape}"
            )
        if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
            raise ValueError("out must be C-contiguous, aligned and writeable")


def _checked(program: Program[Array]) -> Program[Array]:
    """Copy a program with all axes there: matrices (1 or K, ., .), parameters (K, 1, 1 or n)."""
    dtype = np.asarray(program.threshold).dtype
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"threshold must be float32 or float64, got {dtype}")
    given = {
        name: np.array(_check_array(name, array, dtype), order="C")
        for name, array in program.arrays.items()
    }
    m, n = _sizes(given)
    layers = len(given["threshold"]) if given["threshold"].ndim else 0
    parameter, vector = ((layers,), (layers, n)), ((layers,),)
    allowed: dict[str, tuple[tuple[int, ...], ...]] = {
        "dictionary": ((m, n),),
        "weight": ((m, n), (layers, m, n)),
        "gram": ((n, n), (layers, n, n)),
        "threshold": parameter,
        "step": parameter,
        "momentum": vector,
        "rule_weight": vector,
        "rule_bias": vector,
        "prox_shape": vector,
        "error_scale": ((n,),),
        "selection": vector,
        "code_scale": ((n,),),
    }
    for name, array in given.items():
        if array.shape not in allowed[name] or array.size == 0:
            choices = " or ".join(map(str, allowed[name]))
            raise ValueError(f"{name} must have shape {choices}, got {array.shape}")
    has_rule = {"rule_weight", "rule_bias"} <= given.keys()
    if has_rule == ("step" in given):
        raise ValueError("either step or both of rule_weight and rule_bias must be given")
    adaptive = {"error_scale", "selection", "momentum"}
    if ("error_scale" in given or "selection" in given) and not (
        adaptive <= given.keys() and given["threshold"].ndim == 1 and program.heavy_ball
    ):
        raise ValueError(
            "error_scale and selection must be given together, with momentum, heavy_ball and a "
            "threshold of shape (K,)"
        )
    check_choice("prox", program.prox, PROX_KINDS)
    if ("prox_shape" in given) != (program.prox in LEAST_SHAPES):
        raise ValueError(f"prox_shape must be given for {', '.join(LEAST_SHAPES)} alone")
    check_number("rule_minimum", program.rule_minimum, minimum=0.0)
    check_number("rule_maximum", program.rule_maximum, minimum=program.rule_minimum)
    if len(program.bypass) not in (0, layers) or not all(
        isinstance(count, int) and count >= 0 for count in program.bypass
    ):
        raise ValueError(f"bypass must hold {layers} counts or none, got {program.bypass}")
    if any(program.bypass) and program.prox not in SELECTIVE:
        raise ValueError(f"bypass must be 0 with prox {program.prox!r}, got {program.bypass}")
    for name in given.keys() & {"dictionary", "weight", "gram"}:
        given[name] = given[name] if given[name].ndim == 3 else given[name][None]
    for name in given.keys() & {"threshold", "step"}:
        given[name] = given[name].reshape(layers, 1, -1)
    changes: dict[str, Any] = dict(given)
    return replace(program, **changes)


def _sizes(given: dict[str, Array]) -> tuple[int, int]:
    """Sizes m and n."""
    if "dictionary" in given:
        matrix = given["dictionary"]
    elif {"gram", "weight"} <= given.keys():
        matrix = given["weight"]
    else:
        raise ValueError("either dictionary or both of gram and weight must be given")
    if matrix.ndim < 2:
        raise ValueError(f"dictionary and weight must be matrices, got shape {matrix.shape}")
    m, n = matrix.shape[-2:]
    return m, n


def _check_array(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {value.dtype}")
    return value


def _address(array: Array | None) -> int:
    return 0 if array is None else array.ctypes.data


def _strides(array: Array) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(stride // array.itemsize for stride in array.strides)


def _parameter(array: Array | None) -> native.Parameter:
    if array is None:
        return native.Parameter()
    return native.parameter(_address(array), array.shape, _strides(array))


def _pack(matrices: Array, name: str) -> Array:
    """Copy matrices (layers, rows, cols) to the kernels' layout."""
    size = matrices.itemsize
    packed_shape = native.packed_shape(matrices.shape, size)
    nbytes = math.prod(packed_shape) * size
    memory = np.empty(native.room(nbytes) // size, matrices.dtype)
    first = native.begin(_address(memory), nbytes) // size
    packed = memory[first : first + nbytes // size].reshape(packed_shape)
    shape, strides = matrices.shape, _strides(matrices)
    native.pack(size, _address(matrices), shape, strides, _address(packed), name)
    return packed


def _multiply(rows: Array, matrices: Array) -> Array:
    """Products (L, B, n) of rows (B, m) with matrices (L, m, n), by the kernels."""
    rows = np.ascontiguousarray(rows)
    packed = _pack(matrices, "dictionary or weight")
    layers, m, n = matrices.shape
    out = np.empty((layers, len(rows), n), rows.dtype)
    sizes = (layers, len(rows), m, n)
    native.multiply(rows.itemsize, _address(rows), _address(packed), sizes, _address(out), 1)
    return out
