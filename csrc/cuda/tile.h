// SPDX-License-Identifier: Apache-2.0
// What the forward and the backward kernel over tiles of samples share: shared memory and kinds of
// products.
#pragma once

#include "cuda/product.h"

namespace fastunroll::cuda {

// Whether the forward pass rounds to bfloat16.
template <class T>
FASTUNROLL_HD bool mixed(const Network<T>& net) {
  return net.precision == Precision::mixed && net.factored();
}

// The kind of the products that are not mixed ones; those of the backward pass never are.
template <class T>
FASTUNROLL_HD Kind kind_of(const Network<T>& net) {
  if (net.precision == Precision::plain) return Kind::plain;
  return net.precision == Precision::tf32 || mixed(net) ? Kind::tf32 : Kind::split;
}

// The kinds of the forward pass: of products that end in the residual, and in the direction.
template <class T>
FASTUNROLL_HD Kind residual_kind(const Network<T>& net) {
  return mixed(net) ? Kind::split_bf16 : kind_of(net);
}
template <class T>
FASTUNROLL_HD Kind direction_kind(const Network<T>& net) {
  return mixed(net) ? Kind::bf16 : kind_of(net);
}

// Shared memory of a tile: an operand with n columns, one with m in the factored form, the slabs.
template <class T>
constexpr int tile_bytes(int samples, std::int64_t n_atoms, std::int64_t n_measurements,
                         bool factored, bool bf16) {
  return SharedLayout::bytes<T>(static_cast<std::int64_t>(samples) *
                                operand_row<T>(n_atoms, bf16)) +
         (factored ? SharedLayout::bytes<T>(static_cast<std::int64_t>(samples) *
                                            operand_row<T>(n_measurements, bf16))
                   : 0) +
         kPipelineBytes;
}

template <class T>
struct TileShared {
  Operand<T> atoms;
  Operand<T> measurements;
  Shared<float> stages;

  static __device__ __forceinline__ TileShared make(int samples, const Network<T>& net, bool bf16) {
    SharedLayout layout;
    TileShared shared{{Shared<T>::at(0, 0), operand_row<T>(net.n_atoms, bf16)},
                      {Shared<T>::at(0, 0), operand_row<T>(net.n_measurements, bf16)},
                      Shared<float>::at(0, 0)};
    shared.atoms.data = layout.take<T>(samples * shared.atoms.row);
    if (net.factored())
      shared.measurements.data = layout.take<T>(samples * shared.measurements.row);
    shared.stages = layout.take<float>(kPipelineBytes / 4);
    return shared;
  }
};

// Stores a pair of a part's values at columns [column, column + 1] of `length`; the columns from
// there to the operand's end are zeros.
template <class T>
__device__ __forceinline__ void put_pair(Operand<T> operand, int sample, int column,
                                         std::int64_t length, Pack<T, 2> pair) {
  if (column >= operand.row) return;
  if (column >= length) pair.v[0] = T(0);
  if (column + 1 >= length) pair.v[1] = T(0);
  operand.data.template put<2>(operand.at(sample, column), pair);
}

}  // namespace fastunroll::cuda
