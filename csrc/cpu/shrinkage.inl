// SPDX-License-Identifier: Apache-2.0
// Bodies of the shrinkage primitives of kernels.h; a part of kernels.inl, under the same rules.

#include "cpu/kernels.h"
#include "math/prox.h"

namespace {

using fastunroll::Prox;
using fastunroll::cpu::ProxRow;
using fastunroll::cpu::SlopeRow;
using fastunroll::math::Slopes;

// A shrinkage: which entries are listed, and their values.
template <class T>
struct Cut {
  bool nonnegative;
  Prox prox;  // soft, nonnegative or hard

  std::uint32_t entries(Vec<T> u, Vec<T> threshold) const {
    return Vec<T>::not_less_equal(nonnegative ? u : u.abs(), threshold);
  }
  Vec<T> value(Vec<T> u, Vec<T> threshold) const {
    if (prox == Prox::hard) return u;
    return u - (prox == Prox::nonnegative ? threshold : u.copysign_to(threshold));
  }
};

template <class T>
struct Fold {
  fastunroll::math::Folded<Vec<T>> folded;

  std::uint32_t entries(Vec<T> u, Vec<T> threshold) const {
    return Vec<T>::not_less_equal(u.abs(), threshold);
  }
  Vec<T> value(Vec<T> u, Vec<T> threshold) const {
    return u.copysign_to(folded.value(u.abs(), threshold));
  }
};

template <class T>
struct Smooth {
  std::uint32_t entries(Vec<T>, Vec<T>) const { return (1u << Vec<T>::kLanes) - 1u; }
  Vec<T> value(Vec<T> u, Vec<T> threshold) const {
    return u.copysign_to(fastunroll::math::smooth_value(u.abs(), threshold));
  }
};

template <class T, bool kStepVector, bool kThresholdVector, class Shrinkage>
inline std::int32_t prox_row(const ProxRow<T>& row, const Shrinkage shrinkage, std::int32_t* index,
                             T* value) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> step = Vec<T>::broadcast(row.step[0]);
  Vec<T> threshold = Vec<T>::broadcast(row.threshold[0]);
  const Vec<T> zero = Vec<T>::broadcast(T(0));
  const T* y = row.y;
  const T* v = row.v;
  T* x = row.x;
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < row.n; i += kLanes) {
    const int lanes = row.n - i < kLanes ? static_cast<int>(row.n - i) : kLanes;
    const bool full = lanes == kLanes;
    if (kStepVector) {
      step = full ? Vec<T>::load(row.step + i) : Vec<T>::load_partial(row.step + i, lanes);
    }
    if (kThresholdVector) {
      threshold =
          full ? Vec<T>::load(row.threshold + i) : Vec<T>::load_partial(row.threshold + i, lanes);
    }
    const Vec<T> u =
        Vec<T>::fnma(step, Vec<T>::load(v + i), y == nullptr ? zero : Vec<T>::load(y + i));
    std::uint32_t mask = shrinkage.entries(u, threshold);
    if (!full) mask &= (1u << lanes) - 1u;  // padding can hold NaN when the sample does
    const Vec<T> shrunk = shrinkage.value(u, threshold);
    Vec<T>::select(mask, shrunk).store(x + i);
    count +=
        Vec<T>::compress(mask, shrunk, static_cast<std::int32_t>(i), value + count, index + count);
  }
  return count;
}

template <class T, class Shrinkage>
std::int32_t prox_with(const ProxRow<T>& row, const Shrinkage shrinkage, std::int32_t* index,
                       T* value) {
  if (row.step_is_vector) {
    return row.threshold_is_vector ? prox_row<T, true, true>(row, shrinkage, index, value)
                                   : prox_row<T, true, false>(row, shrinkage, index, value);
  }
  return row.threshold_is_vector ? prox_row<T, false, true>(row, shrinkage, index, value)
                                 : prox_row<T, false, false>(row, shrinkage, index, value);
}

template <class T>
fastunroll::math::Folded<Vec<T>> folded(Prox prox, T shape) {
  return fastunroll::math::Folded<Vec<T>>::make(prox, shape);
}

template <class T>
std::int32_t prox(const ProxRow<T>& row, std::int32_t* index, T* value) {
  switch (row.shrink) {
    case Prox::smooth:
      return prox_with(row, Smooth<T>{}, index, value);
    case Prox::firm:
    case Prox::scad:
      return prox_with(row, Fold<T>{folded(row.shrink, row.shape)}, index, value);
    default:
      return prox_with(row, Cut<T>{row.nonnegative, row.shrink}, index, value);
  }
}

// `at(|x|, prepare(threshold))` for all entries, prepared once where the threshold is one number.
template <class T, class Prepare, class At>
inline void slope_row(const SlopeRow<T>& row, Prepare prepare, At at) {
  constexpr int kLanes = Vec<T>::kLanes;
  auto prepared = prepare(Vec<T>::broadcast(row.threshold[0]));
  for (std::int64_t i = 0; i < row.n; i += kLanes) {
    const int lanes = row.n - i < kLanes ? static_cast<int>(row.n - i) : kLanes;
    const Vec<T> x = Vec<T>::load_partial(row.x + i, lanes);
    if (row.threshold_is_vector) {
      prepared = prepare(Vec<T>::load_partial(row.threshold + i, lanes));
    }
    const Slopes<Vec<T>> slopes = at(x.abs(), prepared);
    const Vec<T> sign = x.copysign_to(Vec<T>::broadcast(T(1)));
    slopes.size.store_partial(row.slope + i, lanes);
    (sign * slopes.threshold).store_partial(row.threshold_slope + i, lanes);
    (sign * slopes.shape).store_partial(row.shape_slope + i, lanes);
  }
}

template <class T>
void prox_slopes(const SlopeRow<T>& row) {
  using V = Vec<T>;
  if (row.shrink == Prox::smooth) {
    const auto decay = [](V t) {
      return fastunroll::math::exponential(t * V::broadcast(-2)).value;
    };
    slope_row(row, decay,
              [](V x, V d) { return fastunroll::math::smooth_slopes_from_value(x, d); });
  } else {
    const auto fold = folded(row.shrink, row.shape);
    slope_row(row, [](V t) { return t; }, [=](V x, V t) { return fold.slopes(x, t); });
  }
}

template <class T, class Shrinkage>
inline void shrink_with(std::int64_t n, const T* u, const T* threshold, bool threshold_is_vector,
                        const Shrinkage shrinkage, T* out) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> t = Vec<T>::broadcast(threshold[0]);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    const Vec<T> a = Vec<T>::load_partial(u + i, lanes);
    if (threshold_is_vector) t = Vec<T>::load_partial(threshold + i, lanes);
    Vec<T>::select(shrinkage.entries(a, t), shrinkage.value(a, t)).store_partial(out + i, lanes);
  }
}

template <class T>
void shrink(std::int64_t n, const T* u, const T* threshold, bool threshold_is_vector, Prox prox,
            T* out) {
  if (prox == Prox::smooth) {
    shrink_with(n, u, threshold, threshold_is_vector, Smooth<T>{}, out);
  } else {
    const Cut<T> cut{prox == Prox::nonnegative, prox};
    shrink_with(n, u, threshold, threshold_is_vector, cut, out);
  }
}

template <class T>
double smooth_backward(std::int64_t n, const T* grad, const T* u, const T* threshold,
                       bool threshold_is_vector, T* grad_u, double* threshold_terms) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> t = Vec<T>::broadcast(threshold[0]);
  double total = 0;
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    const Vec<T> a = Vec<T>::load_partial(u + i, lanes);
    const Vec<T> g = Vec<T>::load_partial(grad + i, lanes);
    if (threshold_is_vector) t = Vec<T>::load_partial(threshold + i, lanes);
    const Slopes<Vec<T>> slopes = fastunroll::math::smooth_slopes(a.abs(), t);
    (g * slopes.size).store_partial(grad_u + i, lanes);
    T terms[kLanes];
    (g * a.copysign_to(Vec<T>::broadcast(T(1))) * slopes.threshold).store(terms);
    for (int j = 0; j < lanes; ++j) {
      total += static_cast<double>(terms[j]);
      if (threshold_terms != nullptr) threshold_terms[i + j] += static_cast<double>(terms[j]);
    }
  }
  return total;
}

template <class T>
double shrink_backward(std::int64_t n, const T* grad, const T* u, const T* threshold,
                       bool threshold_is_vector, Prox prox, T* grad_u, double* threshold_terms) {
  if (prox == Prox::smooth) {
    return smooth_backward(n, grad, u, threshold, threshold_is_vector, grad_u, threshold_terms);
  }
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const T t = threshold[threshold_is_vector ? i : 0];
    const T magnitude = prox == Prox::nonnegative ? u[i] : std::fabs(u[i]);
    if (magnitude <= t) {
      grad_u[i] = T(0);
      continue;
    }
    grad_u[i] = grad[i];
    const double term =
        static_cast<double>(grad[i] * fastunroll::math::shrink_threshold_derivative(u[i], prox));
    total += term;
    if (threshold_terms != nullptr) threshold_terms[i] += term;
  }
  return total;
}

}  // namespace
