// SPDX-License-Identifier: Apache-2.0
// Formulas of the proximal operators and the step rule: the only place where this math exists.
// A type V has one or several lanes, such as Vec<T> of cpu/vec_*.h.
#pragma once

#include <cmath>

#include "fastunroll/problem.h"
#include "math/elementary.h"

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

// Share of the atoms that adaptive support selection takes, in [0, 1]; 0 where the errors tell
// nothing (both 0, or NaN).
template <class T>
FASTUNROLL_HD T selected_share(T factor, T first_error, T error) {
  const T share = factor * std::log(first_error / error);
  if (!(share > T(0))) return T(0);
  return share < T(1) ? share : T(1);
}

// Derivatives of |prox(u; t, shape)| with respect to |u|, t and the shape.
template <class V>
struct Slopes {
  V size;
  V threshold;
  V shape;
};

// Firm shrinkage (of the MCP) and SCAD shrinkage are one formula: for |u| > t they follow the soft
// threshold up to |u| = bend t, and from there a steeper line up to |u| = shape t, where |x| = |u|.
template <class V>
struct Folded {
  V bend;  // 1: firm, 2: SCAD
  V shape;
  V rate;  // what the steeper line's slope is above 1

  template <class T>
  static FASTUNROLL_HD Folded make(Prox prox, T shape) {
    const T bend = least_shape(prox);
    return {V::broadcast(bend), V::broadcast(shape), V::broadcast(T(1) / (shape - bend))};
  }

  // |x| for |u| > t.
  FASTUNROLL_HD V value(V size, V threshold) const {
    const V over = V::max(V::broadcast(0), V::fnma(bend, threshold, size));
    return V::min(V::fma(over, rate, size - threshold), size);
  }

  // At |x| > 0.
  FASTUNROLL_HD Slopes<V> slopes(V value, V threshold) const {
    const V zero = V::broadcast(0);
    const V one = V::broadcast(1);
    const V at_bend = V::fma(bend, threshold, zero - threshold);
    const auto whole = V::not_less_equal(value, shape * threshold);
    const auto steep = V::not_less_equal(value, at_bend) & ~whole;
    return {one + V::select(steep, rate),
            zero - (V::select(~whole, one) + V::select(steep, bend * rate)),
            zero - V::select(steep, (value - at_bend) * rate / (shape - bend + one))};
  }
};

// Smooth soft threshold s(u) = log(1 + e^(u - t)) - log(1 + e^(-u - t)). With a = |u|, low and high
// the smaller and the larger of a and t, and gap = high - low,
//   |s| = max(a - t, 0) + log1p(near (1 - e^(-2 low)) / (1 + far)),
//   near = e^(-gap),  far = e^(-a - t),
// in which nothing cancels and nothing overflows.
template <class V>
struct SmoothTerms {
  Exponential<V> near;
  V low_minus_one;  // e^(-2 low) - 1
  V far;
};

template <template <class> class Vec, class T>
FASTUNROLL_HD SmoothTerms<Vec<T>> smooth_terms(Vec<T> size, Vec<T> threshold) {
  using V = Vec<T>;
  const V high = V::max(threshold, size);
  const V low = V::min(threshold, size);
  const V gap = high - low;
  const V rest = (high - gap) - low;  // the rounding error of the gap
  const Exponential<V> near = exponential(V::broadcast(0) - gap, rest);
  const V low_minus_one = exponential(low * V::broadcast(-2)).minus_one;
  return {near, low_minus_one, V::fma(near.value, low_minus_one, near.value)};
}

// |s| at a = |u|.
template <template <class> class Vec, class T>
FASTUNROLL_HD Vec<T> smooth_value(Vec<T> size, Vec<T> threshold) {
  using V = Vec<T>;
  const V zero = V::broadcast(0);
  const SmoothTerms<V> e = smooth_terms(size, threshold);
  const V z = (zero - e.near.value * e.low_minus_one) / (V::broadcast(1) + e.far);
  return V::max(zero, size - threshold) + log1p(z);
}

// Slopes of |s| at a = |u|: p + q and q - p with p = 1 / (1 + e^(t - a)), q = 1 / (1 + e^(a + t)).
template <template <class> class Vec, class T>
FASTUNROLL_HD Slopes<Vec<T>> smooth_slopes(Vec<T> size, Vec<T> threshold) {
  using V = Vec<T>;
  const V one = V::broadcast(1);
  const SmoothTerms<V> e = smooth_terms(size, threshold);
  const V near = e.near.value;
  const V one_near = one + near;
  const auto above = V::not_less_equal(size, threshold);
  const V p = choose(above, one, near) / one_near;
  const V q = e.far / (one + e.far);
  // q - p has the numerator near far - 1 where a > t, and far - near elsewhere.
  const V over = V::fma(near * near, e.low_minus_one, e.near.minus_one * one_near);
  const V difference = choose(above, over, near * e.low_minus_one);
  return {p + q, difference / V::fma(one_near, e.far, one_near), V::broadcast(0)};
}

// The same slopes from the value y = |s|, which determines a: sinh(y/2) = e^(-t) sinh(a - y/2).
template <template <class> class Vec, class T>
FASTUNROLL_HD Slopes<Vec<T>> smooth_slopes_from_value(Vec<T> value, Vec<T> decay) {
  using V = Vec<T>;
  const V two = V::broadcast(2);
  const Exponential<V> e = exponential(V::broadcast(0) - value);
  const V root = V::fma(e.minus_one, e.minus_one, V::broadcast(4) * e.value * decay).sqrt();
  const V scale = two / (V::broadcast(1) + e.value + root);
  return {root * scale, e.minus_one * scale, V::broadcast(0)};
}

}  // namespace fastunroll::math
