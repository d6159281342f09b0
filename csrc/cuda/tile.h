// SPDX-License-Identifier: Apache-2.0
// What the forward and the backward kernel over tiles of samples share: shared memory and kinds of
// products.
#pragma once

#include "cuda/product.h"

namespace fastunroll::cuda {

// The kind of a product that ends in the residual, or in the direction.
constexpr Kind residual_kind(Precision precision) {
  if (precision == Precision::mixed) return Kind::split_bf16;
  if (precision == Precision::split) return Kind::split;
  return precision == Precision::tf32 ? Kind::tf32 : Kind::plain;
}
constexpr Kind direction_kind(Precision precision) {
  return precision == Precision::mixed ? Kind::bf16 : residual_kind(precision);
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
                                         std::int64_t length, T first, T second) {
  if (column >= operand.row) return;
  const Pack<T, 2> pair{{column < length ? first : T(0), column + 1 < length ? second : T(0)}};
  operand.data.template put<2>(operand.at(sample, column), pair);
}

}  // namespace fastunroll::cuda
