// SPDX-License-Identifier: Apache-2.0
#include "cuda/backward_kernel.h"

namespace fastunroll::cuda {

template Error launch_backward_tiles<double, 16>(const BackwardTileArguments<double>&, const Plan&,
                                                 Stream);

}  // namespace fastunroll::cuda
