// SPDX-License-Identifier: Apache-2.0
#include "cuda/forward_kernel.h"

namespace fastunroll::cuda {

template Error launch_forward_tiles<float, 32>(const ForwardArguments<float>&, const Plan&, Stream);

}  // namespace fastunroll::cuda
