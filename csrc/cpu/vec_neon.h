// SPDX-License-Identifier: Apache-2.0
// 16-byte vectors with fused multiply-add (NEON of 64-bit ARM).
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kLanes = 4;
  static constexpr std::uint32_t kLaneBits[kLanes] = {1, 2, 4, 8};
  float32x4_t v;

  static Vec load(const float* p) { return {vld1q_f32(p)}; }
  static Vec load_partial(const float* p, int count) {
    if (count == kLanes) return load(p);
    float lanes[kLanes] = {};
    for (int i = 0; i < count; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  static Vec broadcast(float a) { return {vdupq_n_f32(a)}; }
  void store(float* p) const { vst1q_f32(p, v); }
  void store_partial(float* p, int count) const {
    if (count == kLanes) return store(p);
    float lanes[kLanes];
    store(lanes);
    for (int i = 0; i < count; ++i) p[i] = lanes[i];
  }
  friend Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  static Vec fnma(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
  // Where one is NaN, the result is b.
  static Vec min(Vec a, Vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
  Vec sqrt() const { return {vsqrtq_f32(v)}; }
  // The last bits of each number become the exponent of another one.
  Vec last_bits_to_exponent() const {
    return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(v), 23))};
  }
  Vec abs() const { return {vabsq_f32(v)}; }
  static std::uint32_t not_less_equal(Vec a, Vec b) {
    return vaddvq_u32(vbicq_u32(vld1q_u32(kLaneBits), vcleq_f32(a.v, b.v)));
  }
  static std::uint32_t not_equal(Vec a, Vec b) {
    return vaddvq_u32(vbicq_u32(vld1q_u32(kLaneBits), vceqq_f32(a.v, b.v)));
  }
  static Vec select(std::uint32_t mask, Vec a) {
    const uint32x4_t set = vtstq_u32(vdupq_n_u32(mask), vld1q_u32(kLaneBits));
    return {vreinterpretq_f32_u32(vandq_u32(set, vreinterpretq_u32_f32(a.v)))};
  }
  Vec copysign_to(Vec magnitude) const {
    return {vbslq_f32(vdupq_n_u32(UINT32_C(1) << 31), v, magnitude.v)};
  }
  float sum() const { return vaddvq_f32(v); }
  // The sums of four vectors.
  static void sums(const Vec* a, float* out) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a[0].v, a[1].v), vpaddq_f32(a[2].v, a[3].v)));
  }
  static std::int32_t compress(std::uint32_t mask, Vec a, std::int32_t first, float* value,
                               std::int32_t* index) {
    float lanes[kLanes];
    a.store(lanes);
    std::int32_t count = 0;
    for (int i = 0; i < kLanes; ++i) {
      value[count] = lanes[i];
      index[count] = first + i;
      count += static_cast<std::int32_t>((mask >> i) & 1u);
    }
    return count;
  }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 2;
  static constexpr std::uint64_t kLaneBits[kLanes] = {1, 2};
  float64x2_t v;

  static Vec load(const double* p) { return {vld1q_f64(p)}; }
  static Vec load_partial(const double* p, int count) {
    if (count == kLanes) return load(p);
    const double lanes[kLanes] = {count > 0 ? p[0] : 0.0, 0.0};
    return load(lanes);
  }
  static Vec broadcast(double a) { return {vdupq_n_f64(a)}; }
  void store(double* p) const { vst1q_f64(p, v); }
  void store_partial(double* p, int count) const {
    if (count == kLanes) return store(p);
    if (count > 0) vst1q_lane_f64(p, v, 0);
  }
  friend Vec operator+(Vec a, Vec b) { return {vaddq_f64(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {vsubq_f64(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {vmulq_f64(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {vdivq_f64(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
  static Vec fnma(Vec a, Vec b, Vec c) { return {vfmsq_f64(c.v, a.v, b.v)}; }
  // Where one is NaN, the result is b.
  static Vec min(Vec a, Vec b) { return {vbslq_f64(vcltq_f64(a.v, b.v), a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {vbslq_f64(vcgtq_f64(a.v, b.v), a.v, b.v)}; }
  Vec sqrt() const { return {vsqrtq_f64(v)}; }
  // The last bits of each number become the exponent of another one.
  Vec last_bits_to_exponent() const {
    return {vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(v), 52))};
  }
  Vec abs() const { return {vabsq_f64(v)}; }
  static std::uint32_t not_less_equal(Vec a, Vec b) {
    return static_cast<std::uint32_t>(
        vaddvq_u64(vbicq_u64(vld1q_u64(kLaneBits), vcleq_f64(a.v, b.v))));
  }
  static std::uint32_t not_equal(Vec a, Vec b) {
    return static_cast<std::uint32_t>(
        vaddvq_u64(vbicq_u64(vld1q_u64(kLaneBits), vceqq_f64(a.v, b.v))));
  }
  static Vec select(std::uint32_t mask, Vec a) {
    const uint64x2_t set = vtstq_u64(vdupq_n_u64(mask), vld1q_u64(kLaneBits));
    return {vreinterpretq_f64_u64(vandq_u64(set, vreinterpretq_u64_f64(a.v)))};
  }
  Vec copysign_to(Vec magnitude) const {
    return {vbslq_f64(vdupq_n_u64(UINT64_C(1) << 63), v, magnitude.v)};
  }
  double sum() const { return vaddvq_f64(v); }
  static void sums(const Vec* a, double* out) {
    for (int i = 0; i < 4; i += 2) vst1q_f64(out + i, vpaddq_f64(a[i].v, a[i + 1].v));
  }
  static std::int32_t compress(std::uint32_t mask, Vec a, std::int32_t first, double* value,
                               std::int32_t* index) {
    a.store(value);
    index[0] = first;
    index[1] = first + 1;
    if (mask == 2) {
      value[0] = value[1];
      index[0] = first + 1;
    }
    return __builtin_popcount(mask);
  }
};

constexpr int kDenseSamples = 6;  // register tile of the dense product, samples
constexpr int kDenseVectors = 4;  // and vectors of columns: 24 of 32 registers accumulate
constexpr int kListVectors = 8;   // vectors of columns that a list's rows are added to at a time

}  // namespace
