// SPDX-License-Identifier: Apache-2.0
// Formulas of the proximal operators and the step rule: the only place where this math exists.
#pragma once

#include <cmath>

#include "fastunroll/problem.h"

#if defined(__CUDACC__)
#define FASTUNROLL_HD __host__ __device__ __forceinline__
#else
#define FASTUNROLL_HD inline
#endif

namespace fastunroll::math {

// Value of the proximal operator where |u| > t (or u > t for non-negative codes); it is 0
// elsewhere.
template <class T>
FASTUNROLL_HD T shrink(T u, T threshold, Prox prox) {
  if (prox == Prox::hard) return u;
  if (prox == Prox::nonnegative) return u - threshold;
  return u - std::copysign(threshold, u);
}

// Derivative of the proximal operator's value x with respect to the threshold, where x is not 0.
template <class T>
FASTUNROLL_HD T shrink_threshold_derivative(T x, Prox prox) {
  if (prox == Prox::hard) return T(0);
  if (prox == Prox::nonnegative) return T(-1);
  return -std::copysign(T(1), x);
}

template <class T>
FASTUNROLL_HD T sigmoid(T z) {
  // exp of a negative argument only: no overflow.
  const T e = std::exp(-std::fabs(z));
  return z >= T(0) ? T(1) / (T(1) + e) : e / (T(1) + e);
}

}  // namespace fastunroll::math
