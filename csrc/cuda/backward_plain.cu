// SPDX-License-Identifier: Apache-2.0
#include "cuda/backward_kernel.h"

namespace fastunroll::cuda {

template Error launch_backward<float, Precision::plain>(const BackwardTileArguments<float>&,
                                                        const Plan&, Stream);
template Error launch_backward<double, Precision::plain>(const BackwardTileArguments<double>&,
                                                         const Plan&, Stream);

}  // namespace fastunroll::cuda
