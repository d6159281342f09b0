// SPDX-License-Identifier: Apache-2.0
// The way back through the last layers of a tile, on the few atoms that a sample uses there. With U
// the union of its supports, W = A, and g_k the gradient of the direction v_k,
//
//   gradient of x_k on U = g_k G_U with G_U = A_U^T A_U,   and
//   dA_U^T = (H + H^T) A_U^T - g^T b   with H = sum_k x_k^T g_k and g = sum_k g_k,
//
// so one product per sample replaces five sparse ones per layer.
#pragma once

#include <vector>

#include "cpu/tile.h"

namespace fastunroll::cpu {

template <class T>
class LateLayers {
 public:
  LateLayers(const Problem<T>& problem, std::int64_t capacity);

  // Takes over the layers first() .. K - 1, from where on it is cheapest.
  void start(const Tile<T>& tile);
  std::int64_t first() const { return first_; }

  // Writes the gradient of x_k, on its support, into rows; `grads` is that of v_k.
  void through(const Tile<T>& tile, std::int64_t k, const Lists<T>& grads, T* rows,
               std::int64_t stride);
  // After layer first(): makes the sums ready for `add`, and subtracts the share of db, if wanted.
  void finish(const Tile<T>& tile, T* measurements);
  // Adds the share of rows first .. last - 1 of dA^T, one block of columns.
  void add(const Tile<T>& tile, std::int64_t first, std::int64_t last, std::int64_t column,
           T* target) const;

 private:
  // One sample's numbers over its atoms U.
  struct Sample {
    std::size_t size = 0;
    std::vector<std::int32_t> atoms;         // U, ascending, and kListEnd
    std::vector<T> gram;                     // G_U
    std::vector<T> sums;                     // H, later H + H^T
    std::vector<T> total;                    // g
    std::vector<std::int32_t> column_atoms;  // of all elements of `sums`
  };

  std::int64_t cheapest_start(const Tile<T>& tile);
  void gather(const Tile<T>& tile, std::int64_t s);
  std::int32_t* position(std::int64_t s) const { return position_.get() + s * problem_.n_atoms; }
  std::int32_t* begin(std::int64_t s) const { return begin_.get() + s * (problem_.n_atoms + 1); }

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  std::int64_t first_ = 0;
  std::vector<Sample> samples_;
  Buffer<std::int32_t> position_;  // (samples, n): place of an atom in U, or -1
  Buffer<std::int32_t> begin_;     // (samples, n + 1): begin of an atom's row in `sums`
  Buffer<T> direction_;            // over U
  Buffer<T> codes_;
  RowStore<T> rows_;
  ListStore<T> totals_;
  TransposedStore<T> totals_by_row_;
  RowStore<T> negated_;  // -b
};

}  // namespace fastunroll::cpu
