// SPDX-License-Identifier: Apache-2.0
// The names of device.h in terms of CUDA and PTX.
#pragma once

#include <cuda_runtime.h>

#include "math/elementary.h"

namespace fastunroll::cuda {

__device__ __forceinline__ int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int block_index() { return static_cast<int>(blockIdx.x); }
__device__ __forceinline__ int block_count() { return static_cast<int>(gridDim.x); }

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int lanes) {
  return __shfl_xor_sync(0xffffffffu, value, lanes);
}
__device__ __forceinline__ int count_lanes(bool predicate) {
  return __popc(__ballot_sync(0xffffffffu, predicate));
}

// A part of the block's dynamic shared memory.
template <class T>
struct Shared {
  T* p;

  static __device__ __forceinline__ Shared at(int offset_bytes, int) {
    extern __shared__ __align__(128) unsigned char shared_memory[];
    return {reinterpret_cast<T*>(shared_memory + offset_bytes)};
  }
  __device__ __forceinline__ T& operator[](int i) const { return p[i]; }
  __device__ __forceinline__ Shared from(int i) const { return {p + i}; }
  template <int N>
  __device__ __forceinline__ Pack<T, N> get(int i) const {
    return *reinterpret_cast<const Pack<T, N>*>(p + i);
  }
  template <int N>
  __device__ __forceinline__ void put(int i, const Pack<T, N>& value) const {
    *reinterpret_cast<Pack<T, N>*>(p + i) = value;
  }
  template <class U>
  __device__ __forceinline__ Shared<U> as() const {
    return {reinterpret_cast<U*>(p)};
  }
  // The same part in another block of the cluster.
  __device__ __forceinline__ Shared on(int rank) const {
#if __CUDA_ARCH__ >= 900
    return {static_cast<T*>(__cluster_map_shared_rank(p, static_cast<unsigned>(rank)))};
#else
    return *this;
#endif
  }
};

__device__ __forceinline__ int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  return static_cast<int>(__clusterRelativeBlockRank());
#else
  return 0;
#endif
}
__device__ __forceinline__ void sync_cluster() {
#if __CUDA_ARCH__ >= 900
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}

// Copies kBytes (4, 8 or 16) to shared memory in the background; zeros where not `valid`.
template <int kBytes, class T>
__device__ __forceinline__ void copy_async(Shared<T> to, int i, const T* from, bool valid = true) {
  const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to.p + i));
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(target), "l"(from),
                 "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(target), "l"(from),
                 "n"(kBytes), "r"(bytes)
                 : "memory");
  }
}
// Closes a group of this thread's copies.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
// Until at most `kGroups` of this thread's groups are still under way.
template <int kGroups>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kGroups) : "memory");
}

// Rounded to TF32: 10 bits behind the point.
__device__ __forceinline__ std::uint32_t to_tf32(float a) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(a));
  return bits;
}
__device__ __forceinline__ float as_float(std::uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ std::uint32_t as_bits(float a) { return __float_as_uint(a); }

// Two numbers rounded to bfloat16, the first in the low half.
__device__ __forceinline__ std::uint32_t to_bf16(float low, float high) {
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

// c += a b with a (16, 8) and b (8, 8) of TF32, over a warp: mma.m16n8k8.
__device__ __forceinline__ void mma_tf32(float (&c)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a b with a (16, 16) and b (16, 8) of bfloat16, over a warp: mma.m16n8k16.
__device__ __forceinline__ void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

inline Error message(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

inline Error describe_device(Device* device) {
  int index = 0;
  cudaError_t error = cudaGetDevice(&index);
  const auto ask = [&](cudaDeviceAttr attribute, int* value) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(value, attribute, index);
  };
  ask(cudaDevAttrMultiProcessorCount, &device->multiprocessors);
  ask(cudaDevAttrMaxSharedMemoryPerBlockOptin, &device->shared_bytes);
  ask(cudaDevAttrComputeCapabilityMajor, &device->major);
  ask(cudaDevAttrComputeCapabilityMinor, &device->minor);
  // What every architecture with clusters has.
  device->cluster_blocks = device->major >= 9 ? 8 : 1;
  return message(error);
}

inline Error clear_memory(void* data, std::size_t bytes, Stream stream) {
  return message(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(stream)));
}

template <class... Args>
Error launch(void (*kernel)(Args...), const LaunchShape& shape, Stream stream,
             const Args&... args) {
  if (shape.grid == 0) return nullptr;
  constexpr int kWithoutAsking = 48 << 10;
  if (shape.shared_bytes > kWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
    if (error != cudaSuccess) return message(error);
  }
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.grid));
  config.blockDim = dim3(static_cast<unsigned>(shape.block));
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &cluster;
  config.numAttrs = shape.cluster > 1 ? 1 : 0;
  return message(cudaLaunchKernelEx(&config, kernel, args...));
}

}  // namespace fastunroll::cuda
