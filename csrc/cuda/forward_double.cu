// SPDX-License-Identifier: Apache-2.0
#include "cuda/forward_kernel.h"

namespace fastunroll::cuda {

template Error launch_forward_tiles<double, 16>(const ForwardArguments<double>&, const Plan&,
                                                Stream);

}  // namespace fastunroll::cuda
