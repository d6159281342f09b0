// SPDX-License-Identifier: Apache-2.0
// Matrices in the layout that product.h streams.
#include "cuda/product.h"

namespace fastunroll::cuda {
namespace {

Kind kind_of(Layout layout) {
  if (layout == Layout::split_bf16) return Kind::split_bf16;
  return layout == Layout::bf16 ? Kind::bf16 : Kind::plain;
}

template <class T>
struct PackArguments {
  PackProblem<T> problem;
  int slabs_per_panel;
  int slabs_per_layer;
};

template <class T>
__device__ __forceinline__ T source_at(const PackProblem<T>& p, std::int64_t layer,
                                       std::int64_t row, std::int64_t col) {
  if (row >= p.rows || col >= p.cols) return T(0);
  return p.source[layer * p.layer_stride + row * p.row_stride + col * p.col_stride];
}

// A block per slab.
template <class T>
__global__ void __launch_bounds__(kThreads) pack_kernel(const PackArguments<T> a, T* target) {
  const PackProblem<T>& p = a.problem;
  const std::int64_t layer = block_index() / a.slabs_per_layer;
  const int panel = block_index() % a.slabs_per_layer / a.slabs_per_panel;
  const int slab = block_index() % a.slabs_per_panel;
  constexpr int kElements = kSlabBytes / static_cast<int>(sizeof(T));
  T* const to = target + static_cast<std::int64_t>(block_index()) * kElements;
  for (int i = thread_index(); i < kElements; i += kThreads) {
    const int in_panel = i % kPanelRow;
    const std::int64_t col = in_panel < kPanel ? panel * kPanel + in_panel : p.cols;
    if (p.layout == Layout::plain) {
      to[i] = source_at(p, layer, slab * kSlabRows<T> + i / kPanelRow, col);
      continue;
    }
    const bool split = p.layout == Layout::split_bf16;
    const std::int64_t row = (split ? slab / 2 : slab) * 16 + i / kPanelRow * 2;
    const auto first = static_cast<float>(source_at(p, layer, row, col));
    const auto second = static_cast<float>(source_at(p, layer, row + 1, col));
    std::uint32_t bits = to_bf16(first, second);
    if (split && slab % 2 == 1) {
      bits = to_bf16(first - as_float(bits << 16), second - as_float(bits & 0xffff0000u));
    }
    reinterpret_cast<std::uint32_t*>(to)[i] = bits;
  }
}

}  // namespace

std::size_t packed_bytes(std::int64_t rows, std::int64_t cols, int element_bytes, Layout layout) {
  const Kind kind = kind_of(layout);
  const int count = element_bytes == 8 ? slabs<double>(rows, kind) : slabs<float>(rows, kind);
  return static_cast<std::size_t>(panels(cols)) * static_cast<std::size_t>(count) * kSlabBytes;
}

template <class T>
Error pack(const PackProblem<T>& p, void* target, Stream stream) {
  if (sizeof(T) == 8 && p.layout != Layout::plain) return "bfloat16 layouts are of float32";
  const int per_panel = slabs<T>(p.rows, kind_of(p.layout));
  const int per_layer = per_panel * panels(p.cols);
  return launch(pack_kernel<T>, {p.layers * per_layer, kThreads}, stream,
                PackArguments<T>{p, per_panel, per_layer}, static_cast<T*>(target));
}

template Error pack<float>(const PackProblem<float>&, void*, Stream);
template Error pack<double>(const PackProblem<double>&, void*, Stream);

}  // namespace fastunroll::cuda
