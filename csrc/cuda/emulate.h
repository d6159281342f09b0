// SPDX-License-Identifier: Apache-2.0
// The names of device.h on the host: every CUDA thread is a fiber, blocks of a cluster run
// together, and what a GPU would leave undefined ends the program with a message:
//   * a barrier or warp operation that threads reach at different places, or not at all;
//   * shared memory out of range, misaligned, read before it is written, or accessed by two
//     threads with no barrier in between, one of them writing;
//   * the target of an asynchronous copy touched before the copy was waited for.
// Products of tensor cores round as the hardware does: operands to TF32 or bfloat16, sums towards
// zero.
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>

#include "math/elementary.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__

namespace fastunroll::cuda {

namespace emulate {

[[noreturn]] void fail(const char* what, int line);

// Of the fiber that runs.
int thread_index();
int block_index();
int block_count();
int cluster_rank();

// A warp that meets `in order` has also seen its shared memory accesses up to there.
enum class Meeting { warp, warp_in_order, block, cluster };

// Waits until every thread of the group is at this line. Threads of a warp hand `data` to one
// another: `finish` runs once, when all are there, with the pointers of the 32 lanes.
void meet(Meeting group, int line, void* data = nullptr, void (*finish)(void**) = nullptr);

// `rank` of the cluster, or -1: this block.
void shared_read(int rank, int offset, int bytes, void* to, int line);
void shared_write(int rank, int offset, int bytes, const void* from, int line);
void copy_async(int offset, int bytes, const void* from, bool valid, int line);
void commit_copies();
void wait_copies(int groups);

void run(const LaunchShape& shape, const std::function<void()>& thread);

float toward_zero(double a);

}  // namespace emulate

// 16-bit numbers: their bits, and the way to and from float.
struct Half {
  std::uint16_t bits;
};
struct Bfloat16 {
  std::uint16_t bits;
};
float __half2float(Half a);
Half __float2half_rn(float a);
float __bfloat162float(Bfloat16 a);
Bfloat16 __float2bfloat16_rn(float a);

inline int thread_index() { return emulate::thread_index(); }
inline int block_index() { return emulate::block_index(); }
inline int block_count() { return emulate::block_count(); }
inline int cluster_rank() { return emulate::cluster_rank(); }

inline void sync_block(int line = __builtin_LINE()) {
  emulate::meet(emulate::Meeting::block, line);
}
inline void sync_cluster(int line = __builtin_LINE()) {
  emulate::meet(emulate::Meeting::cluster, line);
}
inline void sync_warp(int line = __builtin_LINE()) {
  emulate::meet(emulate::Meeting::warp_in_order, line);
}

template <class T>
T shuffle_xor(T value, int lanes, int line = __builtin_LINE()) {
  T values[2] = {value, value};
  struct Exchange {
    T* values;
    int lanes;
  } exchange{values, lanes};
  emulate::meet(emulate::Meeting::warp, line, &exchange, [](void** all) {
    for (int i = 0; i < kWarp; ++i) {
      const auto* mine = static_cast<Exchange*>(all[i]);
      mine->values[1] = static_cast<Exchange*>(all[i ^ mine->lanes])->values[0];
    }
  });
  return values[1];
}

inline int count_lanes(bool predicate, int line = __builtin_LINE()) {
  int value = predicate ? 1 : 0;
  emulate::meet(emulate::Meeting::warp, line, &value, [](void** all) {
    int sum = 0;
    for (int i = 0; i < kWarp; ++i) sum += *static_cast<int*>(all[i]);
    for (int i = 0; i < kWarp; ++i) *static_cast<int*>(all[i]) = sum;
  });
  return value;
}

template <class T>
class Shared {
 public:
  class Element {
   public:
    Element(Shared shared, int i, int line) : shared_(shared), i_(i), line_(line) {}
    operator T() const {
      T value;
      shared_.read(i_, 1, &value, line_);
      return value;
    }
    void operator=(T value) const { shared_.write(i_, 1, &value, line_); }
    void operator=(const Element& other) const { *this = static_cast<T>(other); }
    void operator+=(T value) const { *this = static_cast<T>(*this) + value; }

   private:
    const Shared shared_;
    const int i_;
    const int line_;
  };
  // Where an element is accessed: the line of the caller, for the message.
  struct Index {
    template <class I, class = std::enable_if_t<std::is_integral_v<I>>>
    Index(I i, int line = __builtin_LINE()) : value(static_cast<int>(i)), line(line) {}
    int value;
    int line;
  };

  static Shared at(int offset_bytes, int count) { return {-1, offset_bytes, count}; }
  Element operator[](Index i) const { return {*this, i.value, i.line}; }
  Shared from(int i) const {
    return {rank_, offset_ + i * static_cast<int>(sizeof(T)), count_ - i};
  }
  template <int N>
  Pack<T, N> get(Index i) const {
    Pack<T, N> pack;
    read(i.value, N, &pack, i.line);
    return pack;
  }
  template <int N>
  void put(Index i, const Pack<T, N>& value) const {
    write(i.value, N, &value, i.line);
  }
  template <class U>
  Shared<U> as() const {
    return Shared<U>(rank_, offset_,
                     static_cast<int>(count_ * static_cast<std::int64_t>(sizeof(T)) /
                                      static_cast<std::int64_t>(sizeof(U))));
  }
  Shared on(int rank) const { return {rank, offset_, count_}; }

  // For copy_async.
  int place(int i, int n, int line) const {
    const int size = static_cast<int>(sizeof(T));
    if (i < 0 || i + n > count_) emulate::fail("shared memory out of range", line);
    if ((offset_ + i * size) % (n * size) != 0) {
      emulate::fail("shared memory access not aligned", line);
    }
    return offset_ + i * size;
  }
  Shared(int rank, int offset, int count) : rank_(rank), offset_(offset), count_(count) {}

 private:
  void read(int i, int n, void* to, int line) const {
    emulate::shared_read(rank_, place(i, n, line), n * static_cast<int>(sizeof(T)), to, line);
  }
  void write(int i, int n, const void* from, int line) const {
    emulate::shared_write(rank_, place(i, n, line), n * static_cast<int>(sizeof(T)), from, line);
  }
  int rank_;
  int offset_;
  int count_;
};

template <int kBytes, class T>
void copy_async(Shared<T> to, int i, const T* from, bool valid = true,
                int line = __builtin_LINE()) {
  const int place = to.place(i, kBytes / static_cast<int>(sizeof(T)), line);
  if (valid && reinterpret_cast<std::uintptr_t>(from) % kBytes != 0) {
    emulate::fail("source of an asynchronous copy not aligned", line);
  }
  emulate::copy_async(place, kBytes, from, valid, line);
}
inline void commit_copies() { emulate::commit_copies(); }
template <int kGroups>
void wait_copies() {
  emulate::wait_copies(kGroups);
}

inline float as_float(std::uint32_t bits) {
  float a;
  std::memcpy(&a, &bits, sizeof(a));
  return a;
}
inline std::uint32_t as_bits(float a) {
  std::uint32_t bits;
  std::memcpy(&bits, &a, sizeof(a));
  return bits;
}
inline std::uint32_t to_tf32(float a) {
  return std::isfinite(a) ? (as_bits(a) + 0x1000u) & 0xffffe000u : as_bits(a);
}
inline std::uint32_t to_bf16(float low, float high) {
  return __float2bfloat16_rn(low).bits | static_cast<std::uint32_t>(__float2bfloat16_rn(high).bits)
                                             << 16;
}

namespace emulate {

struct Fragments {
  float* c;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

// Element `half` of 32 bits: the TF32 number, or one of the two bfloat16 numbers.
template <int kHalves>
double element(std::uint32_t bits, int half) {
  if (kHalves == 1) return as_float(bits & 0xffffe000u);
  return as_float(half == 0 ? bits << 16 : bits & 0xffff0000u);
}

// The lanes' registers as the PTX manual lays them out, with g = lane / 4 and t = lane % 4: a[0]
// holds row g and column t, a[1] row g + 8, a[2] column t + 4, a[3] both; b[0] row t and column g,
// b[1] row t + 4; c[0] row g and column 2 t, c[1] the next column, c[2] and c[3] row g + 8. Where
// 32 bits hold two numbers, they are neighbours along the summed index.
template <int kHalves>
void mma(void** all) {
  for (int i = 0; i < kWarp; ++i) {
    const auto& mine = *static_cast<Fragments*>(all[i]);
    for (int j = 0; j < 4; ++j) {
      double sum = mine.c[j];
      for (int k = 0; k < 8 * kHalves; ++k) {
        const int t = k / kHalves % 4;
        const int high = k / kHalves / 4;
        const auto& row = *static_cast<Fragments*>(all[i / 4 * 4 + t]);
        const auto& col = *static_cast<Fragments*>(all[(i % 4 * 2 + j % 2) * 4 + t]);
        sum += element<kHalves>(row.a[2 * high + j / 2], k % kHalves) *
               element<kHalves>(col.b[high], k % kHalves);
      }
      mine.c[j] = toward_zero(sum);
    }
  }
}

}  // namespace emulate

inline void mma_tf32(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     int line = __builtin_LINE()) {
  emulate::Fragments mine{c, a, b};
  emulate::meet(emulate::Meeting::warp, line, &mine, emulate::mma<1>);
}
inline void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     int line = __builtin_LINE()) {
  emulate::Fragments mine{c, a, b};
  emulate::meet(emulate::Meeting::warp, line, &mine, emulate::mma<2>);
}

// A small Hopper.
inline Error describe_device(Device* device) {
  *device = {4, 227 << 10, 8, 9, 0};
  return nullptr;
}

inline Error clear_memory(void* data, std::size_t bytes, Stream) {
  if (bytes > 0) std::memset(data, 0, bytes);
  return nullptr;
}

template <class... Args>
Error launch(void (*kernel)(Args...), const LaunchShape& shape, Stream, const Args&... args) {
  emulate::run(shape, [&] { kernel(args...); });
  return nullptr;
}

}  // namespace fastunroll::cuda
