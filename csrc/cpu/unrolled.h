// SPDX-License-Identifier: Apache-2.0
// The unrolled recursion on the CPU.
#pragma once

#include "fastunroll/problem.h"

namespace fastunroll::cpu {

// Both run on at most `threads` threads; no result depends on their number.
template <class T>
Status unrolled_forward(const Problem<T>& problem, const ForwardOutputs<T>& out, int threads);

// Goes back from a tape; without one it runs forward again, a tile per thread at a time.
template <class T>
Status unrolled_backward(const Problem<T>& problem, const BackwardArguments<T>& args, int threads);

// out (n, n), packed, = A^T A of a packed matrix A and its transpose; half of it is computed.
template <class T>
Status gram(const PackedMatrix<T>& dictionary_t, const PackedMatrix<T>& dictionary, T* out,
            int threads);

// out[l] = rows (batch, matrix.rows) times the matrix of layer l: (layers, batch, matrix.cols).
template <class T>
Status multiply(const T* rows, std::int64_t batch, const PackedMatrix<T>& matrix,
                std::int64_t layers, T* out, int threads);

// Copies `layers` matrices into the kernels' layout; false where one holds NaN or Inf. Element (i,
// j) of layer l is at source[l * layer_stride + i * row_stride + j * col_stride].
template <class T>
bool pack(const T* source, std::int64_t layers, std::int64_t rows, std::int64_t cols,
          std::int64_t layer_stride, std::int64_t row_stride, std::int64_t col_stride, T* target);

}  // namespace fastunroll::cpu
