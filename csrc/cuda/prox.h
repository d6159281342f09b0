// SPDX-License-Identifier: Apache-2.0
// The shrinkages of math/prox.h for one number at a time.
#pragma once

#include <cmath>

#include "cuda/device.h"
#include "math/prox.h"

namespace fastunroll::cuda {

// A vector of one lane.
template <class T>
struct Lane {
  T v;

  static FASTUNROLL_HD Lane broadcast(T a) { return {a}; }
  friend FASTUNROLL_HD Lane operator+(Lane a, Lane b) { return {a.v + b.v}; }
  friend FASTUNROLL_HD Lane operator-(Lane a, Lane b) { return {a.v - b.v}; }
  friend FASTUNROLL_HD Lane operator*(Lane a, Lane b) { return {a.v * b.v}; }
  friend FASTUNROLL_HD Lane operator/(Lane a, Lane b) { return {a.v / b.v}; }
  static FASTUNROLL_HD Lane fma(Lane a, Lane b, Lane c) { return {std::fma(a.v, b.v, c.v)}; }
  static FASTUNROLL_HD Lane fnma(Lane a, Lane b, Lane c) { return {std::fma(-a.v, b.v, c.v)}; }
  // Where one is NaN, the result is b.
  static FASTUNROLL_HD Lane min(Lane a, Lane b) { return {a.v < b.v ? a.v : b.v}; }
  static FASTUNROLL_HD Lane max(Lane a, Lane b) { return {a.v > b.v ? a.v : b.v}; }
  FASTUNROLL_HD Lane sqrt() const { return {std::sqrt(v)}; }
  static FASTUNROLL_HD std::uint32_t not_less_equal(Lane a, Lane b) { return a.v <= b.v ? 0u : 1u; }
  static FASTUNROLL_HD Lane select(std::uint32_t mask, Lane a) {
    return {(mask & 1u) != 0 ? a.v : T(0)};
  }
  // The last bits of the number become the exponent of another one.
  FASTUNROLL_HD Lane last_bits_to_exponent() const {
    return {std::ldexp(T(1), static_cast<int>(v - math::Elementary<T>::kInteger -
                                              math::Elementary<T>::kExponentBias))};
  }
};

// Size that is compared with the threshold.
template <class T>
FASTUNROLL_HD T shrink_size(T u, Prox prox) {
  return prox == Prox::nonnegative ? u : std::fabs(u);
}

// Out of line: rare, and long.
template <class T>
__device__ __noinline__ T curved_value(T u, T threshold, Prox prox, T shape) {
  using V = Lane<T>;
  const V size{std::fabs(u)};
  if (prox == Prox::smooth) return std::copysign(math::smooth_value(size, V{threshold}).v, u);
  if (size.v <= threshold) return T(0);
  return std::copysign(math::Folded<V>::make(prox, shape).value(size, V{threshold}).v, u);
}

template <class T>
__device__ __noinline__ math::Slopes<T> curved_slopes(T u, T threshold, Prox prox, T shape) {
  using V = Lane<T>;
  const V size{std::fabs(u)};
  math::Slopes<V> slopes{{T(0)}, {T(0)}, {T(0)}};
  if (prox == Prox::smooth) {
    slopes = math::smooth_slopes(size, V{threshold});
  } else if (!(size.v <= threshold)) {
    const auto folded = math::Folded<V>::make(prox, shape);
    slopes = folded.slopes(folded.value(size, V{threshold}), V{threshold});
  }
  const T sign = std::copysign(T(1), u);
  return {slopes.size.v, sign * slopes.threshold.v, sign * slopes.shape.v};
}

// Whether the shrinkage has other slopes than 0 and 1.
FASTUNROLL_HD constexpr bool curved(Prox prox) { return prox >= Prox::smooth; }

// prox(u; threshold) for those that are not; with `kept` what exceeds the threshold stays as it is.
template <class T>
__device__ __forceinline__ T straight_value(T u, T threshold, Prox prox, bool kept) {
  if (shrink_size(u, prox) <= threshold) return T(0);
  return kept ? u : math::shrink(u, threshold, prox);
}

// prox(u; threshold, shape) for all.
template <class T>
__device__ __forceinline__ T prox_value(T u, T threshold, Prox prox, T shape, bool kept) {
  return curved(prox) ? curved_value(u, threshold, prox, shape)
                      : straight_value(u, threshold, prox, kept);
}

// Its derivatives with respect to u, the threshold and the shape.
template <class T>
__device__ __forceinline__ math::Slopes<T> prox_slopes(T u, T threshold, Prox prox, T shape,
                                                       bool kept) {
  if (curved(prox)) return curved_slopes(u, threshold, prox, shape);
  if (shrink_size(u, prox) <= threshold) return {T(0), T(0), T(0)};
  return {T(1), kept ? T(0) : math::shrink_threshold_derivative(u, prox), T(0)};
}

}  // namespace fastunroll::cuda
