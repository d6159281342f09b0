// SPDX-License-Identifier: Apache-2.0
// The forward pass's launches, and what they leave for the backward pass.
#pragma once

#include <type_traits>

#include "cuda/device.h"

namespace fastunroll::cuda {

// What the backward pass reads of the forward pass, as rows of `trace_row` elements; null: not
// asked for. In the shapes below n and m stand for the lengths of these rows.
template <class T>
struct Trace {
  T* codes = nullptr;       // x_1 .. x_K (K, B, n)
  T* points = nullptr;      // y (K, B, n), with momentum unless with heavy ball
  T* directions = nullptr;  // v (K, B, n); the backward pass leaves the gradients of v here
  T* residuals = nullptr;   // r (K, B, m), factored form
  T* norms = nullptr;       // ||v|| (K, B), with a rule
  T* ranks = nullptr;       // |u| from which on entries skip the shrinkage (K, B), with bypass
};

constexpr FASTUNROLL_HD std::int64_t trace_row(std::int64_t length) { return (length + 3) / 4 * 4; }

template <class T>
struct ForwardArguments {
  Network<T> net;
  T* codes;
  T* iterates;
  Trace<T> trace;
  T* scratch;  // of deferred layers: for every block v, and with momentum x_k and x_{k-1}
};

// Whether v goes through the scratch.
template <class T>
FASTUNROLL_HD bool deferred(const Network<T>& net) {
  return !net.factored() || net.rule_weight != nullptr || net.bypass != nullptr ||
         net.momentum != nullptr || net.prox >= Prox::smooth;
}

// Runs a plan for tiles.
template <class T>
Error launch_forward(const ForwardArguments<T>& a, const Plan& plan, Stream stream);

// The same for tiles of so many samples; each is compiled in a file of its own.
template <class T, int kSamples>
Error launch_forward_tiles(const ForwardArguments<T>& a, const Plan& plan, Stream stream);

// launch(samples), where decltype(samples)::value are those of a plan's tiles.
template <class T, class Launch>
Error with_tiles_of(const Plan& plan, Launch launch) {
  if constexpr (sizeof(T) == 4) {
    if (plan.samples == 32) return launch(std::integral_constant<int, 32>());
    if (plan.samples == 64) return launch(std::integral_constant<int, 64>());
  }
  return launch(std::integral_constant<int, 16>());
}

// Few samples on clusters of blocks; see cluster.cu.
Error launch_cluster(const ForwardArguments<float>& a, const Plan& plan, Stream stream);

}  // namespace fastunroll::cuda
