// SPDX-License-Identifier: Apache-2.0
// The backward pass's launches, each compiled in files of its own.
#pragma once

#include "cuda/forward.h"
#include "cuda/product.h"

namespace fastunroll::cuda {

// A parameter's derivative at every layer, sample and atom; the rows of a layer are n apart.
template <class T>
struct Terms {
  T* data = nullptr;  // null: not asked for
  std::int64_t layer_stride = 0;
};

// Derivatives summed over the atoms, (K, samples) each; null: not asked for.
struct SampleSums {
  double* step = nullptr;
  double* threshold = nullptr;
  double* shape = nullptr;
  double* rule_weight = nullptr;
  double* rule_bias = nullptr;
  double* momentum = nullptr;
  std::int64_t layer_stride = 0;
};

// The arrays belong to the samples of `net` and of the trace; those with layers that are not
// contiguous have a stride.
template <class T>
struct BackwardTileArguments {
  Network<T> net;
  Trace<T> trace;
  const T* grad_codes;     // or null
  const T* grad_iterates;  // or null
  std::int64_t iterates_stride;
  T* carry;               // for every block: gradients of x_k, and with momentum of x_{k-1}
  T* residual_gradients;  // (K, B, m) in rows as of a trace; factored form
  Terms<T> step;
  Terms<T> threshold;
  SampleSums sums;
  T* measurements;  // or null
  T* linear;        // or null
  T* initial;       // or null
};

// Tiles of so many samples; each is compiled in a file of its own.
template <class T, int kSamples>
Error launch_backward_tiles(const BackwardTileArguments<T>& a, const Plan& plan, Stream stream);

// Bytes of workspace with chunks of `chunk` samples.
template <class T>
std::size_t backward_workspace(const Network<T>& net, const BackwardArguments<T>& args,
                               const Plan& plan, std::int64_t chunk);

// partials[layer, split, i, j] += sum over rows of left[layer, row, i] right[layer, row, j].
template <class T>
struct OuterProducts {
  const T* left;
  std::int64_t left_row;  // elements between rows
  std::int64_t left_cols;
  const T* right;
  std::int64_t right_row;
  std::int64_t right_cols;
  std::int64_t rows;  // of one layer; the next layer's follow
  std::int64_t layers;
  T* partials;
};

// Partial sums, over ranges of rows, of one layer of the matrix that is summed up.
std::int64_t outer_splits(std::int64_t left_cols, std::int64_t right_cols, std::int64_t layers);

template <class T>
Error add_outer_products(const OuterProducts<T>& products, Kind kind, std::int64_t splits,
                         Stream stream);

}  // namespace fastunroll::cuda
