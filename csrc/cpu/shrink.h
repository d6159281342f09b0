// SPDX-License-Identifier: Apache-2.0
// The bare shrinkage and its derivatives.
#pragma once

#include "fastunroll/problem.h"

namespace fastunroll::cpu {

// prox(u; t), soft, non-negative or smooth, for contiguous u (rows, cols); t is shared (both
// strides 0), per row or per column.
template <class T>
struct ShrinkProblem {
  const T* u = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const T* threshold = nullptr;
  std::int64_t sample_stride = 0;
  std::int64_t atom_stride = 0;
  Prox prox = Prox::soft;
};

template <class T>
Status shrink(const ShrinkProblem<T>& problem, T* out, int threads);

// grad_u (rows, cols) and grad_threshold in the shape of t.
template <class T>
Status shrink_backward(const ShrinkProblem<T>& problem, const T* grad, T* grad_u, T* grad_threshold,
                       int threads);

}  // namespace fastunroll::cpu
