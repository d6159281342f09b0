// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"

namespace fastunroll::cuda {

Error describe(Device* device) { return describe_device(device); }

}  // namespace fastunroll::cuda
