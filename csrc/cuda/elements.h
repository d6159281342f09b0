// SPDX-License-Identifier: Apache-2.0
// The types of elements, and the numbers that are computed with in their place.
#pragma once

#include "cuda/device.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace fastunroll::cuda {

using Half = __half;
using Bfloat16 = __nv_bfloat16;

}  // namespace fastunroll::cuda
#endif

namespace fastunroll::cuda {

// An element as the number that is computed with, and back.
__device__ __forceinline__ float widen(float a) { return a; }
__device__ __forceinline__ double widen(double a) { return a; }
__device__ __forceinline__ float widen(Half a) { return __half2float(a); }
__device__ __forceinline__ float widen(Bfloat16 a) { return __bfloat162float(a); }

template <class E>
__device__ __forceinline__ E narrow(double a) {
  return static_cast<E>(a);
}
template <>
__device__ __forceinline__ Half narrow<Half>(double a) {
  return __float2half_rn(static_cast<float>(a));
}
template <>
__device__ __forceinline__ Bfloat16 narrow<Bfloat16>(double a) {
  return __float2bfloat16_rn(static_cast<float>(a));
}

template <class E>
using Wide = decltype(widen(E{}));

}  // namespace fastunroll::cuda
