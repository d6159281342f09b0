// SPDX-License-Identifier: Apache-2.0
#include "cuda/elements.h"
#include "cuda/reduce.h"

namespace fastunroll::cuda {
namespace {

template <class From, class To>
__global__ void __launch_bounds__(kSumThreads)
    sum_rows_kernel(const From* in, std::int64_t cols, To* out) {
  const From* row = in + block_index() * cols;
  double sum = 0;
  for (std::int64_t c = thread_index(); c < cols; c += kSumThreads) {
    sum += static_cast<double>(row[c]);
  }
  sum = block_sum(sum, SharedLayout().take<double>(kSumWarps));
  if (thread_index() == 0) out[block_index()] = narrow<To>(sum);
}

// A block has one layer and 32 columns; its warps walk every eighth row.
template <class From, class To>
__global__ void __launch_bounds__(kSumThreads)
    sum_columns_kernel(const From* in, std::int64_t rows, std::int64_t cols, To* out, bool add) {
  const std::int64_t groups = (cols + kWarp - 1) / kWarp;
  const std::int64_t layer = block_index() / groups;
  const std::int64_t col = block_index() % groups * kWarp + lane();
  double sum = 0;
  if (col < cols) {
    for (std::int64_t r = warp(); r < rows; r += kSumWarps) {
      sum += static_cast<double>(in[(layer * rows + r) * cols + col]);
    }
  }
  const Shared<double> parts = SharedLayout().take<double>(kSumThreads);
  parts[thread_index()] = sum;
  sync_block();
  if (warp() != 0 || col >= cols) return;
  sum = add ? static_cast<double>(widen(out[layer * cols + col])) : 0.0;
  for (int w = 0; w < kSumWarps; ++w) sum += parts[w * kWarp + lane()];
  out[layer * cols + col] = narrow<To>(sum);
}

}  // namespace

template <class From, class To>
Error sum_rows(const From* in, std::int64_t rows, std::int64_t cols, To* out, Stream stream) {
  return launch(sum_rows_kernel<From, To>, {rows, kSumThreads, kBlockSumBytes}, stream, in, cols,
                out);
}

template <class From, class To>
Error sum_columns(const From* in, std::int64_t layers, std::int64_t rows, std::int64_t cols,
                  To* out, bool add, Stream stream) {
  const std::int64_t grid = layers * ((cols + kWarp - 1) / kWarp);
  const int bytes = SharedLayout::bytes<double>(kSumThreads);
  return launch(sum_columns_kernel<From, To>, {grid, kSumThreads, bytes}, stream, in, rows, cols,
                out, add);
}

#define INSTANTIATE(From, To)                                                                      \
  template Error sum_rows<From, To>(const From*, std::int64_t, std::int64_t, To*, Stream);         \
  template Error sum_columns<From, To>(const From*, std::int64_t, std::int64_t, std::int64_t, To*, \
                                       bool, Stream);
INSTANTIATE(double, float)
INSTANTIATE(double, double)
INSTANTIATE(double, Half)
INSTANTIATE(double, Bfloat16)
INSTANTIATE(float, float)
#undef INSTANTIATE

}  // namespace fastunroll::cuda
