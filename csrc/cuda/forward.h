// SPDX-License-Identifier: Apache-2.0
// The forward pass's launches, each compiled in a file of its own.
#pragma once

#include "cuda/device.h"

namespace fastunroll::cuda {

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

// Runs the kernel over tiles with a plan's samples per tile.
template <class T, Precision kPrecision>
Error launch_forward(const ForwardArguments<T>& a, const Plan& plan, Stream stream);

// Few samples on clusters of blocks; see cluster.cu.
Error launch_cluster(const ForwardArguments<float>& a, const Plan& plan, Stream stream);

}  // namespace fastunroll::cuda
