// SPDX-License-Identifier: Apache-2.0
// The way back through one layer's shrinkage: from the gradient of x_{k+1} to those of u, of the
// layer's parameters and of the direction v.
#include <cmath>

#include "cpu/backward_tile.h"
#include "math/prox.h"

namespace fastunroll::cpu {

// Turns one sample's gradient of x_{k+1} on its support into that of u, by the slopes.
template <class T>
void BackwardTile<T>::through_slopes(std::int64_t k, std::int64_t s, T* grad) {
  const Lists<T> codes = tile_.codes(k + 1);
  const std::int32_t count = codes.count[s];
  const std::int32_t* index = codes.index + s * codes.stride;
  const T* threshold = parameter_row(problem_.threshold, k, tile_.first() + s);
  SlopeRow<T> row;
  row.n = count;
  row.x = codes.value + s * codes.stride;
  row.threshold = threshold;
  row.threshold_is_vector = problem_.threshold.atom_stride != 0;
  row.shrink = problem_.prox;
  if (problem_.prox_shape != nullptr) row.shape = problem_.prox_shape[k];
  if (row.threshold_is_vector) {
    for (std::int32_t p = 0; p < count; ++p) thresholds_[p] = threshold[index[p]];
    row.threshold = thresholds_.get();
  }
  row.slope = slopes_.get();
  row.threshold_slope = row.slope + codes.stride;
  row.shape_slope = row.threshold_slope + codes.stride;
  kernels_.prox_slopes(row);
  if (sums_.threshold.get() != nullptr) {
    sums_.threshold[sample_index(k, s)] =
        static_cast<double>(kernels_.dot(count, row.threshold_slope, grad, false));
  }
  if (sums_.prox_shape.get() != nullptr) {
    sums_.prox_shape[sample_index(k, s)] =
        static_cast<double>(kernels_.dot(count, row.shape_slope, grad, false));
  }
  for (std::int32_t p = 0; p < count; ++p) {
    row.threshold_slope[p] *= grad[p];
    grad[p] *= row.slope[p];
  }
}

// Sum of the threshold's derivatives over one support.
template <class T>
T BackwardTile<T>::threshold_sum(std::int32_t count, const T* x, const T* grad_u,
                                 const std::uint8_t* kept) const {
  if (problem_.prox == Prox::soft && kept == nullptr) {
    return -kernels_.dot(count, x, grad_u, true);
  }
  T sum = 0;
  for (std::int32_t p = 0; p < count; ++p) {
    if (kept != nullptr && kept[p] != 0) continue;
    sum += grad_u[p] * math::shrink_threshold_derivative(x[p], problem_.prox);
  }
  return sum;
}

// From the gradient of x_{k+1} to those of u, the threshold, the step and the direction v.
template <class T>
void BackwardTile<T>::through_prox(std::int64_t k) {
  const Lists<T> codes = tile_.codes(k + 1);
  for (std::int64_t s = 0; s < tile_.samples(); ++s) {
    const std::int64_t offset = s * codes.stride;
    const std::int32_t count = codes.count[s];
    const std::int32_t* index = codes.index + offset;
    const T* x = codes.value + offset;
    const T* grad = grad_codes_.row((k + 1) % 3, s);
    const T* v = tile_.support_direction(k, s);
    const std::uint8_t* kept = tile_.kept(k + 1, s);
    T* grad_u = grad_u_.get() + offset;
    for (std::int32_t p = 0; p < count; ++p) grad_u[p] = grad[index[p]];

    const Prox prox = problem_.prox;
    const T* terms = slopes() ? slopes_.get() + codes.stride : nullptr;
    if (slopes()) through_slopes(k, s, grad_u);

    const auto threshold_term = [=](std::int32_t p) {
      if (terms != nullptr) return terms[p];
      const bool shrunk = kept == nullptr || kept[p] == 0;
      return shrunk ? grad_u[p] * math::shrink_threshold_derivative(x[p], prox) : T(0);
    };
    const auto step_term = [=](std::int32_t p) { return -grad_u[p] * v[p]; };
    if (sums_.threshold.get() != nullptr && !slopes()) {
      sums_.threshold[sample_index(k, s)] =
          static_cast<double>(threshold_sum(count, x, grad_u, kept));
    }
    const double step_sum = -static_cast<double>(kernels_.dot(count, grad_u, v, false));
    if (sums_.step.get() != nullptr) sums_.step[sample_index(k, s)] = step_sum;
    keep_terms(threshold_, k, s, count, index, threshold_term);
    keep_terms(step_, k, s, count, index, step_term);

    const T* step =
        rule() ? &tile_.rule_step(k, s) : parameter_row(problem_.step, k, tile_.first() + s);
    const std::int64_t step_stride = rule() ? 0 : problem_.step.atom_stride;
    T* grad_v = grad_direction_.get() + offset;
    for (std::int32_t p = 0; p < count; ++p) grad_v[p] = -step[step_stride * index[p]] * grad_u[p];
    if (!dense_direction_) continue;
    T* row = grad_directions_.row(k, s);
    if (rule()) {
      const T factor = through_rule(k, s, step_sum);
      const T* dense_v = tile_.directions().row(k, s);
      for (std::int64_t i = 0; i < problem_.n_atoms; ++i) row[i] = dense_v[i] * factor;
      std::fill(row + problem_.n_atoms, row + grad_directions_.stride(), T(0));
    } else {
      std::fill(row, row + grad_directions_.stride(), T(0));
    }
    for (std::int32_t p = 0; p < count; ++p) row[index[p]] += grad_v[p];
  }
}

// Terms of a parameter that has an axis over the atoms.
template <class T>
template <class Term>
void BackwardTile<T>::keep_terms(const ParameterTerms<T>& parameter, std::int64_t k, std::int64_t s,
                                 std::int32_t count, const std::int32_t* index, Term term) {
  if (parameter.out == nullptr || !parameter.per_atom) return;
  if (parameter.per_sample) {
    T* out = parameter.out + sample_index(k, s) * problem_.n_atoms;
    for (std::int32_t p = 0; p < count; ++p) out[index[p]] = term(p);
  } else {
    T* out = parameter.terms.get() + (k * tile_.capacity() + s) * problem_.n_atoms;
    for (std::int32_t p = 0; p < count; ++p) out[p] = term(p);
  }
}

// Gradient of the rule's step, given; returns the factor f of the part f v of v's gradient.
template <class T>
T BackwardTile<T>::through_rule(std::int64_t k, std::int64_t s, double grad_step) {
  const T norm = tile_.norm(k, s);
  const T gate = math::sigmoid(problem_.rule_weight[k] * norm + problem_.rule_bias[k]);
  const double range = static_cast<double>(problem_.rule_maximum - problem_.rule_minimum);
  const double grad_logit = grad_step * range * static_cast<double>(gate * (T(1) - gate));
  if (sums_.rule_weight.get() != nullptr) {
    sums_.rule_weight[sample_index(k, s)] = grad_logit * static_cast<double>(norm);
  }
  if (sums_.rule_bias.get() != nullptr) sums_.rule_bias[sample_index(k, s)] = grad_logit;
  // The norm's subgradient at v = 0 is 0.
  if (norm == T(0)) return T(0);
  return static_cast<T>(grad_logit) * problem_.rule_weight[k] / norm;
}

template void BackwardTile<float>::through_prox(std::int64_t);
template void BackwardTile<double>::through_prox(std::int64_t);

}  // namespace fastunroll::cpu
