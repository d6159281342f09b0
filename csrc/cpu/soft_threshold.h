// SPDX-License-Identifier: Apache-2.0
// The bare shrinkage and its derivatives.
#pragma once

#include "fastunroll/problem.h"

namespace fastunroll::cpu {

// S_t(u) for contiguous u (rows, cols); t is shared (both strides 0), per row or per column.
template <class T>
struct ThresholdProblem {
  const T* u = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const T* threshold = nullptr;
  std::int64_t sample_stride = 0;
  std::int64_t atom_stride = 0;
  bool nonnegative = false;
};

template <class T>
Status soft_threshold(const ThresholdProblem<T>& problem, T* out, int threads);

// grad_u (rows, cols) and grad_threshold in the shape of t.
template <class T>
Status soft_threshold_backward(const ThresholdProblem<T>& problem, const T* grad, T* grad_u,
                               T* grad_threshold, int threads);

}  // namespace fastunroll::cpu
