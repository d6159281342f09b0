// SPDX-License-Identifier: Apache-2.0
// Copies of strided rows, as they are and transposed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace fastunroll::cpu {

template <class T>
void copy_rows(std::int64_t rows, std::int64_t cols, const T* in, std::int64_t in_stride, T* out,
               std::int64_t out_stride) {
  for (std::int64_t i = 0; i < rows; ++i) {
    std::copy(in + i * in_stride, in + i * in_stride + cols, out + i * out_stride);
  }
}

// out[j, i] = in[i, j] for a square of one 16-byte vector a side.
template <class T>
inline void transpose_square(const T* in, std::int64_t in_stride, T* out, std::int64_t out_stride) {
  constexpr int kSide = 16 / static_cast<int>(sizeof(T));
  typedef T Row __attribute__((vector_size(16)));
  Row a[kSide];
  for (int i = 0; i < kSide; ++i) std::memcpy(&a[i], in + i * in_stride, sizeof(Row));
  Row b[kSide];
  if constexpr (kSide == 2) {
    b[0] = __builtin_shufflevector(a[0], a[1], 0, 2);
    b[1] = __builtin_shufflevector(a[0], a[1], 1, 3);
  } else {
    const Row left01 = __builtin_shufflevector(a[0], a[1], 0, 4, 1, 5);
    const Row left23 = __builtin_shufflevector(a[2], a[3], 0, 4, 1, 5);
    const Row right01 = __builtin_shufflevector(a[0], a[1], 2, 6, 3, 7);
    const Row right23 = __builtin_shufflevector(a[2], a[3], 2, 6, 3, 7);
    b[0] = __builtin_shufflevector(left01, left23, 0, 1, 4, 5);
    b[1] = __builtin_shufflevector(left01, left23, 2, 3, 6, 7);
    b[2] = __builtin_shufflevector(right01, right23, 0, 1, 4, 5);
    b[3] = __builtin_shufflevector(right01, right23, 2, 3, 6, 7);
  }
  for (int i = 0; i < kSide; ++i) std::memcpy(out + i * out_stride, &b[i], sizeof(Row));
}

// out[j, i] = in[i, j] for i < rows and j < cols, by squares of whole cache lines.
template <class T>
void transpose(std::int64_t rows, std::int64_t cols, const T* in, std::int64_t in_stride, T* out,
               std::int64_t out_stride) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
  constexpr std::int64_t kSide = kLine / 4;
  for (std::int64_t i = 0; i < rows; i += kLine) {
    for (std::int64_t j = 0; j < cols; j += kLine) {
      if (i + kLine <= rows && j + kLine <= cols) {
        for (std::int64_t c = j; c < j + kLine; c += kSide) {
          for (std::int64_t r = i; r < i + kLine; r += kSide) {
            transpose_square(in + r * in_stride + c, in_stride, out + c * out_stride + r,
                             out_stride);
          }
        }
        continue;
      }
      for (std::int64_t c = j; c < std::min(j + kLine, cols); ++c) {
        for (std::int64_t r = i; r < std::min(i + kLine, rows); ++r) {
          out[c * out_stride + r] = in[r * in_stride + c];
        }
      }
    }
  }
}

}  // namespace fastunroll::cpu
