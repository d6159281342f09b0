// SPDX-License-Identifier: Apache-2.0
#include "cuda/forward_kernel.h"

namespace fastunroll::cuda {

template Error launch_forward<float, Precision::plain>(const ForwardArguments<float>&, const Plan&,
                                                       Stream);
template Error launch_forward<double, Precision::plain>(const ForwardArguments<double>&,
                                                        const Plan&, Stream);

}  // namespace fastunroll::cuda
