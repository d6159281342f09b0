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

// prox(u; threshold, shape); with `kept` an entry above the threshold is left as it is.
template <class T>
FASTUNROLL_HD T prox_value(T u, T threshold, Prox prox, T shape, bool kept) {
  using V = Lane<T>;
  if (prox == Prox::smooth) {
    return std::copysign(math::smooth_value(V{std::fabs(u)}, V{threshold}).v, u);
  }
  if (shrink_size(u, prox) <= threshold) return T(0);
  if (kept) return u;
  if (prox == Prox::firm || prox == Prox::scad) {
    const auto folded = math::Folded<V>::make(prox, shape);
    return std::copysign(folded.value(V{std::fabs(u)}, V{threshold}).v, u);
  }
  return math::shrink(u, threshold, prox);
}

// Derivatives of prox_value with respect to u, the threshold and the shape.
template <class T>
FASTUNROLL_HD math::Slopes<T> prox_slopes(T u, T threshold, Prox prox, T shape, bool kept) {
  using V = Lane<T>;
  const T sign = std::copysign(T(1), u);
  const T size = std::fabs(u);
  if (prox == Prox::smooth) {
    const auto slopes = math::smooth_slopes(V{size}, V{threshold});
    return {slopes.size.v, sign * slopes.threshold.v, T(0)};
  }
  if (shrink_size(u, prox) <= threshold) return {T(0), T(0), T(0)};
  if (kept) return {T(1), T(0), T(0)};
  if (prox == Prox::firm || prox == Prox::scad) {
    const auto folded = math::Folded<V>::make(prox, shape);
    const auto slopes = folded.slopes(folded.value(V{size}, V{threshold}), V{threshold});
    return {slopes.size.v, sign * slopes.threshold.v, sign * slopes.shape.v};
  }
  return {T(1), math::shrink_threshold_derivative(u, prox), T(0)};
}

}  // namespace fastunroll::cuda
