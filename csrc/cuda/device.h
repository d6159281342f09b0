// SPDX-License-Identifier: Apache-2.0
// All that the kernels use of the device beyond C++, in two implementations of the same names:
// `device_gpu.h` in terms of CUDA and PTX, and `emulate.h` for a host without a GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/api.h"

namespace fastunroll::cuda {

constexpr int kWarp = 32;

// A vector that is loaded and stored in one access.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T v[N];
};

// Elements of a 16-byte access.
template <class T>
constexpr int kPack = 16 / static_cast<int>(sizeof(T));

struct LaunchShape {
  std::int64_t grid = 1;
  int block = kWarp;
  int shared_bytes = 0;
  int cluster = 1;
};

}  // namespace fastunroll::cuda

#if defined(__CUDACC__)
#include "cuda/device_gpu.h"
#else
#include "cuda/emulate.h"
#endif

namespace fastunroll::cuda {

__device__ __forceinline__ int lane() { return thread_index() % kWarp; }
__device__ __forceinline__ int warp() { return thread_index() / kWarp; }

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const Pack<T, N>& value) {
  *reinterpret_cast<Pack<T, N>*>(to) = value;
}

// Sum over a warp, the same in every lane, always in the same order.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += shuffle_xor(value, offset);
  return value;
}

// Hands out a block's shared memory piece by piece; `bytes` counts without handing out.
class SharedLayout {
 public:
  template <class T>
  __device__ __forceinline__ Shared<T> take(int count) {
    const Shared<T> piece = Shared<T>::at(bytes_, count);
    bytes_ += bytes<T>(count);
    return piece;
  }
  template <class T>
  static constexpr FASTUNROLL_HD int bytes(std::int64_t count) {
    return static_cast<int>((count * static_cast<std::int64_t>(sizeof(T)) + 15) / 16 * 16);
  }

 private:
  int bytes_ = 0;
};

}  // namespace fastunroll::cuda
