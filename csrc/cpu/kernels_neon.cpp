// SPDX-License-Identifier: Apache-2.0
#include "cpu/vec_neon.h"
// The vector type must be known before the bodies that use it.
#include "cpu/kernels.inl"

FASTUNROLL_KERNEL_TABLE(neon)
