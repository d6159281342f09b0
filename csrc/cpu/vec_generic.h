// SPDX-License-Identifier: Apache-2.0
// 16-byte vectors in the compiler's portable vector syntax; multiply and add round separately.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

template <class T>
struct Vec {
  typedef T Native __attribute__((vector_size(16)));
  using NativeBits = decltype(Native{} == Native{});  // integers of the same size
  static constexpr int kLanes = 16 / sizeof(T);
  Native v;

  static Vec load(const T* p) {
    Vec r;
    std::memcpy(&r.v, p, sizeof(r.v));
    return r;
  }
  static Vec load_partial(const T* p, int count) {
    Vec r{};
    for (int i = 0; i < count; ++i) r.v[i] = p[i];
    return r;
  }
  static Vec broadcast(T a) {
    Vec r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = a;
    return r;
  }
  void store(T* p) const { std::memcpy(p, &v, sizeof(v)); }
  void store_partial(T* p, int count) const {
    for (int i = 0; i < count; ++i) p[i] = v[i];
  }
  friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  static Vec fnma(Vec a, Vec b, Vec c) { return {c.v - a.v * b.v}; }
  friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  // Where one is NaN, the result is b.
  static Vec min(Vec a, Vec b) {
    Vec r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return r;
  }
  static Vec max(Vec a, Vec b) {
    Vec r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return r;
  }
  Vec sqrt() const {
    Vec r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = std::sqrt(v[i]);
    return r;
  }
  // The last bits of each number become the exponent of another one.
  Vec last_bits_to_exponent() const {
    NativeBits bits;
    std::memcpy(&bits, &v, sizeof(v));
    bits <<= sizeof(T) == 8 ? 52 : 23;
    Vec r;
    std::memcpy(&r.v, &bits, sizeof(v));
    return r;
  }
  Vec abs() const {
    Vec r = *this;
    for (int i = 0; i < kLanes; ++i) r.v[i] = v[i] < 0 ? -v[i] : v[i];
    return r;
  }
  // Bit i is set where not(a <= b): true for NaN.
  static std::uint32_t not_less_equal(Vec a, Vec b) {
    std::uint32_t mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= static_cast<std::uint32_t>(!(a.v[i] <= b.v[i])) << i;
    return mask;
  }
  static std::uint32_t not_equal(Vec a, Vec b) {
    std::uint32_t mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= static_cast<std::uint32_t>(a.v[i] != b.v[i]) << i;
    return mask;
  }
  // Lanes of the mask, else 0.
  static Vec select(std::uint32_t mask, Vec a) {
    Vec r{};
    for (int i = 0; i < kLanes; ++i) r.v[i] = (mask >> i) & 1u ? a.v[i] : T(0);
    return r;
  }
  Vec copysign_to(Vec magnitude) const {
    Vec r;
    for (int i = 0; i < kLanes; ++i) {
      r.v[i] = v[i] < 0 ? -magnitude.v[i] : magnitude.v[i];
    }
    return r;
  }
  T sum() const {
    T total = v[0];
    for (int i = 1; i < kLanes; ++i) total += v[i];
    return total;
  }
  // The sums of four vectors.
  static void sums(const Vec* a, T* out) {
    for (int i = 0; i < 4; ++i) out[i] = a[i].sum();
  }
  // Writes the lanes of the mask one after the other, with their indices; returns their number.
  static std::int32_t compress(std::uint32_t mask, Vec a, std::int32_t first, T* value,
                               std::int32_t* index) {
    std::int32_t count = 0;
    for (int i = 0; i < kLanes; ++i) {
      value[count] = a.v[i];
      index[count] = first + i;
      count += static_cast<std::int32_t>((mask >> i) & 1u);
    }
    return count;
  }
};

constexpr int kDenseSamples = 4;  // register tile of the dense product, samples
constexpr int kDenseVectors = 2;  // and vectors of columns: 8 of 16 registers accumulate
constexpr int kListVectors = 8;   // vectors of columns that a list's rows are added to at a time

}  // namespace
