"""The recursion as users of other tools write it: PyTorch, NumPy, ONNX Runtime.

All of them skip the product with x_0 = 0, and have a factored form, u = x - step ((x A^T - b) W),
and a Gram form, u = x - step (x G - b W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastunroll._optional import import_optional

Shrink = Callable[[Tensor, Any], Tensor]
"""A shrinkage (u, threshold) -> S_threshold(u)."""

Array = NDArray[Any]
FORMS = ("factored", "gram")


def shrink_by_clamp(u: Tensor, threshold: Tensor) -> Tensor:
    """U - clamp(u)."""
    return u - u.clamp(-threshold, threshold)


def shrink_by_sign(u: Tensor, threshold: Tensor) -> Tensor:
    """sign(u) relu(|u| - t)."""
    return u.sign() * torch.relu(u.abs() - threshold)


SHRINKS: dict[str, Shrink] = {"clamp": shrink_by_clamp, "sign": shrink_by_sign}
"""Shrinkages for thresholds that are tensors, which ``softshrink`` does not take."""


def eager(
    b: Tensor,
    dictionary: Tensor,
    weights: Iterable[Tensor],
    steps: Iterable[Any],
    thresholds: Iterable[Any],
    shrink: Shrink,
) -> Tensor:
    """The formula in plain PyTorch, one weight, step and threshold per layer."""
    x: Tensor | None = None
    for w, step, threshold in zip(weights, steps, thresholds, strict=True):
        u = step * (b @ w) if x is None else x - step * ((x @ dictionary.mT - b) @ w)
        x = shrink(u, threshold)
    assert x is not None
    return x


def eager_gram(
    linears: Iterable[Tensor],
    grams: Iterable[Tensor],
    steps: Iterable[Any],
    thresholds: Iterable[Any],
    shrink: Shrink,
) -> Tensor:
    """The same in Gram form from c = b W and G = A^T W of every layer: half the calls."""
    x: Tensor | None = None
    for c, gram, step, threshold in zip(linears, grams, steps, thresholds, strict=True):
        u = step * c if x is None else x - step * torch.addmm(c, x, gram, beta=-1)
        x = shrink(u, threshold)
    assert x is not None
    return x


def numpy_loop(
    form: str, a: Array, weights: list[Array], steps: list[float], thresholds: list[float]
) -> Callable[[Array], Array]:
    """A loop over the layers in NumPy; what does not depend on b is computed once, before."""
    at, grams = np.ascontiguousarray(a.T), _grams(form, a, weights)
    distinct = {id(w): w for w in weights}
    layers = list(zip(weights, steps, thresholds, strict=True))

    def shrink(u: Array, t: float) -> Array:
        shrunk: Array = u - np.clip(u, -t, t)
        return shrunk

    def factored(b: Array) -> Array:
        w, step, t = layers[0]
        x = shrink(step * (b @ w), t)
        for w, step, t in layers[1:]:
            v = (x @ at - b) @ w
            v *= -step
            v += x
            x = shrink(v, t)
        return x

    def gram(b: Array) -> Array:
        linear = {key: b @ w for key, w in distinct.items()}
        w, step, t = layers[0]
        x = shrink(step * linear[id(w)], t)
        for g, (w, step, t) in zip(grams[1:], layers[1:], strict=True):
            v = x @ g
            v -= linear[id(w)]
            v *= -step
            v += x
            x = shrink(v, t)
        return x

    return gram if form == "gram" else factored


def onnx_session(
    form: str,
    a: Array,
    weights: list[Array],
    steps: list[float],
    thresholds: list[float],
    n_threads: int,
) -> Callable[[Array], Array]:
    """The recursion as an ONNX graph, run by ONNX Runtime with all its optimisations.

    ``Shrink`` is ONNX's operator for the soft threshold. Steps of 1 cost nothing.
    """
    onnx = import_optional("onnx", "bench")
    onnxruntime = import_optional("onnxruntime", "bench")
    make, from_array = onnx.helper.make_node, onnx.numpy_helper.from_array
    nodes: list[Any] = []
    constants: dict[str, Any] = {}

    def node(kind: str, *inputs: str, **attributes: float) -> str:
        nodes.append(make(kind, list(inputs), [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def constant(array: Array) -> str:
        name = f"c{id(array)}"
        constants[name] = from_array(np.ascontiguousarray(array), name)
        return name

    at, grams = np.ascontiguousarray(a.T), _grams(form, a, weights)
    scales = {step: np.array(step, np.float32) for step in steps}
    linear: dict[str, str] = {}
    x = None
    for k, (w, step, t) in enumerate(zip(weights, steps, thresholds, strict=True)):
        if x is None or form == "gram":
            name = constant(w)
            c = linear.setdefault(name, "") or node("MatMul", "b", name)
            linear[name] = c
            v = c if x is None else node("Sub", node("MatMul", x, constant(grams[k])), c)
        else:
            residual = node("Sub", node("MatMul", x, constant(at)), "b")
            v = node("MatMul", residual, constant(w))
        v = v if step == 1.0 else node("Mul", v, constant(scales[step]))
        u = v if x is None else node("Sub", x, v)
        x = node("Shrink", u, lambd=float(t), bias=float(t))
    info, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    inputs = [info("b", float32, ["batch", a.shape[0]])]
    outputs = [info(x, float32, ["batch", a.shape[1]])]
    graph = onnx.helper.make_graph(
        nodes, "unrolled", inputs, outputs, initializer=list(constants.values())
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(b: Array) -> Array:
        codes: Array = session.run(None, {"b": b})[0]
        return codes

    return run


def _grams(form: str, a: Array, weights: list[Array]) -> list[Array]:
    """G = A^T W of every layer, formed in float64, one for all layers that share their weights."""
    if form != "gram":
        return []
    made: dict[int, Array] = {}
    for w in weights:
        if id(w) not in made:
            made[id(w)] = (a.T.astype(np.float64) @ w.astype(np.float64)).astype(np.float32)
    return [made[id(w)] for w in weights]
