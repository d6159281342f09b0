// SPDX-License-Identifier: Apache-2.0
// 32-byte vectors with fused multiply-add (AVX2 + FMA).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

template <class T>
struct Vec;

alignas(32) constexpr std::int32_t kTail[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                0,  0,  0,  0,  0,  0,  0,  0};

inline __m256i tail_mask(int count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kTail + 8 - count));
}

template <>
struct Vec<float> {
  static constexpr int kLanes = 8;
  __m256 v;

  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load_partial(const float* p, int count) {
    return {_mm256_maskload_ps(p, tail_mask(count))};
  }
  static Vec broadcast(float a) { return {_mm256_set1_ps(a)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store_partial(float* p, int count) const { _mm256_maskstore_ps(p, tail_mask(count), v); }
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
  // Where one is NaN, the result is b.
  static Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  Vec sqrt() const { return {_mm256_sqrt_ps(v)}; }
  // The last bits of each number become the exponent of another one.
  Vec last_bits_to_exponent() const {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 23))};
  }
  Vec abs() const { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), v)}; }
  static std::uint32_t not_less_equal(Vec a, Vec b) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_NLE_UQ)));
  }
  static std::uint32_t not_equal(Vec a, Vec b) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)));
  }
  static Vec select(std::uint32_t mask, Vec a) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bits);
    return {_mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bits)), a.v)};
  }
  Vec copysign_to(Vec magnitude) const {
    return {_mm256_or_ps(_mm256_and_ps(_mm256_set1_ps(-0.0f), v), magnitude.v)};
  }
  float sum() const {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  // The sums of four vectors.
  static void sums(const Vec* a, float* out) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a[0].v, a[1].v), _mm256_hadd_ps(a[2].v, a[3].v));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
  }
  static std::int32_t compress(std::uint32_t mask, Vec a, std::int32_t first, float* value,
                               std::int32_t* index) {
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, a.v);
    std::int32_t count = 0;
    for (; mask != 0; mask &= mask - 1, ++count) {
      const int i = __builtin_ctz(mask);
      value[count] = lanes[i];
      index[count] = first + i;
    }
    return count;
  }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 4;
  __m256d v;

  static Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static Vec load_partial(const double* p, int count) {
    return {_mm256_maskload_pd(p, tail_mask(2 * count))};
  }
  static Vec broadcast(double a) { return {_mm256_set1_pd(a)}; }
  void store(double* p) const { _mm256_storeu_pd(p, v); }
  void store_partial(double* p, int count) const {
    _mm256_maskstore_pd(p, tail_mask(2 * count), v);
  }
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_pd(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_pd(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_pd(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_pd(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
  static Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_pd(a.v, b.v, c.v)}; }
  // Where one is NaN, the result is b.
  static Vec min(Vec a, Vec b) { return {_mm256_min_pd(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm256_max_pd(a.v, b.v)}; }
  Vec sqrt() const { return {_mm256_sqrt_pd(v)}; }
  // The last bits of each number become the exponent of another one.
  Vec last_bits_to_exponent() const {
    return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(v), 52))};
  }
  Vec abs() const { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), v)}; }
  static std::uint32_t not_less_equal(Vec a, Vec b) {
    return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a.v, b.v, _CMP_NLE_UQ)));
  }
  static std::uint32_t not_equal(Vec a, Vec b) {
    return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a.v, b.v, _CMP_NEQ_UQ)));
  }
  static Vec select(std::uint32_t mask, Vec a) {
    const __m256i bits = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi64x(static_cast<long long>(mask)), bits);
    return {_mm256_and_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(set, bits)), a.v)};
  }
  Vec copysign_to(Vec magnitude) const {
    return {_mm256_or_pd(_mm256_and_pd(_mm256_set1_pd(-0.0), v), magnitude.v)};
  }
  double sum() const {
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
  }
  static void sums(const Vec* a, double* out) {
    for (int i = 0; i < 4; i += 2) {
      const __m256d s = _mm256_hadd_pd(a[i].v, a[i + 1].v);
      _mm_storeu_pd(out + i, _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd(s, 1)));
    }
  }
  static std::int32_t compress(std::uint32_t mask, Vec a, std::int32_t first, double* value,
                               std::int32_t* index) {
    alignas(32) double lanes[4];
    _mm256_store_pd(lanes, a.v);
    std::int32_t count = 0;
    for (; mask != 0; mask &= mask - 1, ++count) {
      const int i = __builtin_ctz(mask);
      value[count] = lanes[i];
      index[count] = first + i;
    }
    return count;
  }
};

constexpr int kDenseSamples = 6;  // register tile of the dense product, samples
constexpr int kDenseVectors = 2;  // and vectors of columns: 12 of 16 registers accumulate
constexpr int kListVectors = 8;   // vectors of columns that a list's rows are added to at a time

}  // namespace
