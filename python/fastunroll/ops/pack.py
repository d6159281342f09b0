"""Matrices in the kernels' layout, see `fastunroll.ops.native.packed_shape`."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from fastunroll.ops import native


class PackedOperands(NamedTuple):
    """The packed matrices of the recursion; empty tensors where not used."""

    gram: Tensor  # G
    gram_t: Tensor  # G^T
    dictionary_t: Tensor  # A^T
    weight: Tensor  # W
    weight_t: Tensor  # W^T


def empty_packed(like: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Memory for packed matrices (layers, rows, cols), with any content."""
    size = like.element_size()
    packed_shape = native.packed_shape(shape, size)
    nbytes = math.prod(packed_shape) * size
    memory = like.new_empty(native.room(nbytes) // size)
    first = native.begin(memory.data_ptr(), nbytes) // size
    return memory[first : first + nbytes // size].view(packed_shape)


def pack(matrix: Tensor, name: str = "matrix") -> Tensor:
    """Pack (rows, cols) or (layers, rows, cols), of any strides, for the kernels.

    Raises
    ------
    ValueError
        If the matrix, called ``name``, contains NaN or Inf.
    """
    matrix = matrix if matrix.dim() == 3 else matrix[None]
    layers, rows, cols = shape = matrix.shape
    packed = empty_packed(matrix, (layers, rows, cols))
    size, stride = matrix.element_size(), matrix.stride()
    native.pack(size, matrix.data_ptr(), shape, stride, packed.data_ptr(), name)
    return packed


def pack_operands(
    gram: Tensor | None,
    dictionary: Tensor | None,
    weight: Tensor | None,
    *,
    forward: bool = True,
    backward: bool = True,
    objective: bool = True,
    analysis: bool = False,
    adjoint: bool = False,
    symmetric: bool = False,
    untied: bool = True,
) -> PackedOperands:
    """Pack the matrices that the kernels read.

    Parameters
    ----------
    gram : (layers, n, n), or None in the factored form
    dictionary : (m, n), where the form or the objective needs it
    weight : (layers, m, n), or None where W = A
    forward, backward : whether layers are run, and differentiated
    objective : whether the objective is wanted, too
    analysis : whether W is wanted beside G, for c = b W
    adjoint : whether its way back to b is wanted, too
    symmetric : whether G is its own transpose, so that one copy serves both passes
    untied : whether those that every layer has for itself are packed, too
    """
    given = gram if gram is not None else dictionary
    assert given is not None
    none = given.new_empty(0)
    gram_p = gram_t = dictionary_t = weight_p = weight_t = none
    if gram is not None and (untied or len(gram) == 1):
        if forward:
            gram_p = pack(gram, "gram, or the dictionary or weight that it is made of,")
        if backward:
            gram_t = gram_p if symmetric else pack(gram.mT)
    if dictionary is not None:
        if gram is None or objective or (adjoint and weight is None):
            dictionary_t = pack(dictionary.mT, "dictionary")
        if weight is not None and not untied and len(weight) > 1:
            return PackedOperands(gram_p, gram_t, dictionary_t, none, none)
        if forward and (gram is None or analysis):
            weight_p = pack(dictionary if weight is None else weight, "weight")
        if backward and (gram is None or (analysis and adjoint)):
            weight_t = dictionary_t if weight is None else pack(weight.mT)
    return PackedOperands(gram_p, gram_t, dictionary_t, weight_p, weight_t)
