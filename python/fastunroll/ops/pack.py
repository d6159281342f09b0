"""Matrices in the kernels' layout: blocks of 256 bytes of columns, (layers, blocks, rows, columns).

One column block of a chunk of rows is contiguous, so it stays in the L1 cache while all samples of
a tile use it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastunroll import _native


class PackedOperands(NamedTuple):
    """The packed matrices of the recursion; empty tensors where not used."""

    gram: Tensor  # G
    gram_t: Tensor  # G^T
    dictionary_t: Tensor  # A^T
    weight: Tensor  # W
    weight_t: Tensor  # W^T


def pack(matrix: Tensor, name: str = "matrix") -> Tensor:
    """Pack (rows, cols) or (layers, rows, cols), of any strides, for the kernels.

    Raises
    ------
    ValueError
        If the matrix, called ``name``, contains NaN or Inf.
    """
    matrix = matrix if matrix.dim() == 3 else matrix[None]
    layers, rows, cols = matrix.shape
    columns = _native.block_bytes // matrix.element_size()
    packed = matrix.new_empty(layers, -(-cols // columns), rows, columns)
    run = _native.pack_f64 if matrix.dtype == torch.float64 else _native.pack_f32
    if not run(matrix.data_ptr(), layers, rows, cols, matrix.stride(), packed.data_ptr()):
        raise ValueError(f"{name} contains NaN or Inf")
    return packed


def pack_operands(
    gram: Tensor | None,
    dictionary: Tensor | None,
    weight: Tensor | None,
    *,
    backward: bool = True,
    analysis: bool = False,
    symmetric: bool = False,
) -> PackedOperands:
    """Pack what the forward pass, and with ``backward`` the backward pass, reads.

    Parameters
    ----------
    gram : (layers, n, n), or None in the factored form
    dictionary : (m, n), where the form or the objective needs it
    weight : (layers, m, n), or None where W = A
    analysis : whether W is wanted beside G, for c = b W
    symmetric : whether G is its own transpose, so that one copy serves both passes
    """
    given = gram if gram is not None else dictionary
    assert given is not None
    none = given.new_empty(0)
    gram_p = gram_t = dictionary_t = weight_p = weight_t = none
    if dictionary is not None:
        dictionary_t = pack(dictionary.mT, "dictionary")
    if gram is not None:
        gram_p = pack(gram, "gram, or the dictionary or weight that it is made of,")
        gram_t = none if not backward else gram_p if symmetric else pack(gram.mT)
    elif dictionary is not None:
        weight_t = dictionary_t if weight is None else pack(weight.mT) if backward else none
    if dictionary is not None and (gram is None or analysis):
        weight_p = pack(dictionary if weight is None else weight, "weight")
    return PackedOperands(gram_p, gram_t, dictionary_t, weight_p, weight_t)
