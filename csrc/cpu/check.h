// SPDX-License-Identifier: Apache-2.0
// Checks of values before anything is computed, and the loop over threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "fastunroll/problem.h"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace fastunroll::cpu {

// True where `accept` holds for all the numbers of a parameter.
template <class T, class Accept>
bool all_of(const LayerParameter<T>& p, std::int64_t layers, std::int64_t batch, std::int64_t atoms,
            Accept accept) {
  const std::int64_t rows = p.sample_stride == 0 ? 1 : batch;
  const std::int64_t cols = p.atom_stride == 0 ? 1 : atoms;
  for (std::int64_t k = 0; k < layers; ++k) {
    for (std::int64_t s = 0; s < rows; ++s) {
      const T* row = p.data + k * p.layer_stride + s * p.sample_stride;
      if (!std::all_of(row, row + cols, accept)) return false;
    }
  }
  return true;
}

template <class T>
Status check_values(const Problem<T>& problem) {
  const auto finite = [](T a) { return std::isfinite(a); };
  const auto positive = [](T a) { return std::isfinite(a) && a > T(0); };
  const auto not_negative = [](T a) { return std::isfinite(a) && a >= T(0); };
  const std::int64_t layers = problem.n_layers;
  if (problem.step.data != nullptr &&
      !all_of(problem.step, layers, problem.batch, problem.n_atoms, positive)) {
    return Status::bad_step;
  }
  if (!all_of(problem.threshold, layers, problem.batch, problem.n_atoms, not_negative)) {
    return Status::bad_threshold;
  }
  if (problem.momentum != nullptr &&
      !std::all_of(problem.momentum, problem.momentum + layers, finite)) {
    return Status::bad_momentum;
  }
  if (problem.rule_weight != nullptr &&
      !(std::all_of(problem.rule_weight, problem.rule_weight + layers, finite) &&
        std::all_of(problem.rule_bias, problem.rule_bias + layers, finite))) {
    return Status::bad_rule;
  }
  const T least = least_shape(problem.prox);
  const auto above_least = [=](T a) { return std::isfinite(a) && a > least; };
  if (problem.prox_shape != nullptr &&
      !std::all_of(problem.prox_shape, problem.prox_shape + layers, above_least)) {
    return Status::bad_shape;
  }
  return Status::ok;
}

// body(task, worker) for all tasks, on at most `workers` threads; serial inside another region.
template <class Body>
void parallel_for(std::int64_t tasks, int workers, Body body) {
#if defined(_OPENMP)
  if (workers > 1 && tasks > 1 && !omp_in_parallel()) {
#pragma omp parallel for num_threads(workers) schedule(dynamic, 1)
    for (std::int64_t t = 0; t < tasks; ++t) body(t, omp_get_thread_num());
    return;
  }
#else
  static_cast<void>(workers);
#endif
  for (std::int64_t t = 0; t < tasks; ++t) body(t, 0);
}

}  // namespace fastunroll::cpu
