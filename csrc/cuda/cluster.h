// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cuda/device.h"

namespace fastunroll::cuda {

// Path::cluster where few samples come and a cluster's shared memory holds the matrices.
Plan cluster_plan(const Network<float>& net, const Device& device);
inline Plan cluster_plan(const Network<double>&, const Device&) { return {}; }

}  // namespace fastunroll::cuda
