// SPDX-License-Identifier: Apache-2.0
// Sums in a fixed order.
#pragma once

#include "cuda/device.h"

namespace fastunroll::cuda {

constexpr int kSumThreads = 256;
constexpr int kSumWarps = kSumThreads / kWarp;
constexpr int kBlockSumBytes = SharedLayout::bytes<double>(kSumWarps);

// Sum over a block of kSumThreads threads, in thread 0; `parts` has a place for every warp.
__device__ __forceinline__ double block_sum(double value, Shared<double> parts) {
  value = warp_sum(value);
  if (lane() == 0) parts[warp()] = value;
  sync_block();
  if (thread_index() != 0) return 0;
  double total = 0;
  for (int w = 0; w < kSumWarps; ++w) total += parts[w];
  return total;
}

// out[r] = sum over c of in[r, c], (rows, cols) contiguous.
template <class From, class To>
Error sum_rows(const From* in, std::int64_t rows, std::int64_t cols, To* out, Stream stream);

// out[l, c] = sum over r of in[l, r, c], or += where `add`; (layers, rows, cols) contiguous.
template <class From, class To>
Error sum_columns(const From* in, std::int64_t layers, std::int64_t rows, std::int64_t cols,
                  To* out, bool add, Stream stream);

}  // namespace fastunroll::cuda
