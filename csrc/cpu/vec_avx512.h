// SPDX-License-Identifier: Apache-2.0
// 64-byte vectors with mask registers (AVX-512 F, CD, BW, DQ, VL).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  static constexpr int kLanes = 16;
  // GCC 12 warns of uninitialised values inside some intrinsics that have no mask.
  static constexpr __mmask16 kAllLanes = 0xffff;
  __m512 v;

  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load_partial(const float* p, int count) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p)};
  }
  static Vec broadcast(float a) { return {_mm512_set1_ps(a)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store_partial(float* p, int count) const {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1u), v);
  }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
  // Where one is NaN, the result is b.
  static Vec min(Vec a, Vec b) { return {_mm512_maskz_min_ps(kAllLanes, a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_maskz_max_ps(kAllLanes, a.v, b.v)}; }
  Vec sqrt() const { return {_mm512_maskz_sqrt_ps(kAllLanes, v)}; }
  // The last bits of each number become the exponent of another one.
  Vec last_bits_to_exponent() const {
    return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAllLanes, _mm512_castps_si512(v), 23))};
  }
  Vec abs() const { return {_mm512_abs_ps(v)}; }
  static std::uint32_t not_less_equal(Vec a, Vec b) {
    return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NLE_UQ);
  }
  static std::uint32_t not_equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ); }
  static Vec select(std::uint32_t mask, Vec a) {
    return {_mm512_maskz_mov_ps(static_cast<__mmask16>(mask), a.v)};
  }
  Vec copysign_to(Vec magnitude) const {
    return {_mm512_or_ps(_mm512_and_ps(_mm512_set1_ps(-0.0f), v), magnitude.v)};
  }
  float sum() const {
    // Through memory: GCC 12 warns of uninitialised values inside its own extract intrinsics.
    alignas(64) float lane[16];
    _mm512_store_ps(lane, v);
    const __m256 half = _mm256_add_ps(_mm256_load_ps(lane), _mm256_load_ps(lane + 8));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  // The sums of four vectors.
  static void sums(const Vec* a, float* out) {
    const __m512 ab = _mm512_add_ps(_mm512_maskz_unpacklo_ps(kAllLanes, a[0].v, a[1].v),
                                    _mm512_maskz_unpackhi_ps(kAllLanes, a[0].v, a[1].v));
    const __m512 cd = _mm512_add_ps(_mm512_maskz_unpacklo_ps(kAllLanes, a[2].v, a[3].v),
                                    _mm512_maskz_unpackhi_ps(kAllLanes, a[2].v, a[3].v));
    // Each quarter of the vectors comes to one sum of its lanes for each of the four.
    __m512 s = _mm512_add_ps(_mm512_maskz_shuffle_ps(kAllLanes, ab, cd, 0x44),
                             _mm512_maskz_shuffle_ps(kAllLanes, ab, cd, 0xee));
    s = _mm512_add_ps(s, _mm512_maskz_shuffle_f32x4(kAllLanes, s, s, 0x4e));
    s = _mm512_add_ps(s, _mm512_maskz_shuffle_f32x4(kAllLanes, s, s, 0xb1));
    _mm512_mask_storeu_ps(out, 0xf, s);
  }
  static std::int32_t compress(std::uint32_t mask, Vec a, std::int32_t first, float* value,
                               std::int32_t* index) {
    const __mmask16 k = static_cast<__mmask16>(mask);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    // Compress in a register and store all lanes: the masked store to memory is slow on some CPUs.
    _mm512_storeu_ps(value, _mm512_maskz_compress_ps(k, a.v));
    _mm512_storeu_si512(
        index, _mm512_maskz_compress_epi32(k, _mm512_add_epi32(lane, _mm512_set1_epi32(first))));
    return __builtin_popcount(mask);
  }
};

template <>
struct Vec<double> {
  static constexpr int kLanes = 8;
  static constexpr __mmask8 kAllLanes = 0xff;
  __m512d v;

  static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static Vec load_partial(const double* p, int count) {
    return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1u), p)};
  }
  static Vec broadcast(double a) { return {_mm512_set1_pd(a)}; }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
  void store_partial(double* p, int count) const {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << count) - 1u), v);
  }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  static Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_pd(a.v, b.v, c.v)}; }
  // Where one is NaN, the result is b.
  static Vec min(Vec a, Vec b) { return {_mm512_maskz_min_pd(kAllLanes, a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_maskz_max_pd(kAllLanes, a.v, b.v)}; }
  Vec sqrt() const { return {_mm512_maskz_sqrt_pd(kAllLanes, v)}; }
  // The last bits of each number become the exponent of another one.
  Vec last_bits_to_exponent() const {
    return {_mm512_castsi512_pd(_mm512_maskz_slli_epi64(kAllLanes, _mm512_castpd_si512(v), 52))};
  }
  Vec abs() const { return {_mm512_abs_pd(v)}; }
  static std::uint32_t not_less_equal(Vec a, Vec b) {
    return _mm512_cmp_pd_mask(a.v, b.v, _CMP_NLE_UQ);
  }
  static std::uint32_t not_equal(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_NEQ_UQ); }
  static Vec select(std::uint32_t mask, Vec a) {
    return {_mm512_maskz_mov_pd(static_cast<__mmask8>(mask), a.v)};
  }
  Vec copysign_to(Vec magnitude) const {
    return {_mm512_or_pd(_mm512_and_pd(_mm512_set1_pd(-0.0), v), magnitude.v)};
  }
  double sum() const {
    alignas(64) double lane[8];
    _mm512_store_pd(lane, v);
    const __m256d half = _mm256_add_pd(_mm256_load_pd(lane), _mm256_load_pd(lane + 4));
    const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
  }
  static void sums(const Vec* a, double* out) {
    for (int i = 0; i < 4; i += 2) {
      __m512d s = _mm512_add_pd(_mm512_maskz_unpacklo_pd(kAllLanes, a[i].v, a[i + 1].v),
                                _mm512_maskz_unpackhi_pd(kAllLanes, a[i].v, a[i + 1].v));
      s = _mm512_add_pd(s, _mm512_maskz_shuffle_f64x2(kAllLanes, s, s, 0x4e));
      s = _mm512_add_pd(s, _mm512_maskz_shuffle_f64x2(kAllLanes, s, s, 0xb1));
      _mm512_mask_storeu_pd(out + i, 0x3, s);
    }
  }
  static std::int32_t compress(std::uint32_t mask, Vec a, std::int32_t first, double* value,
                               std::int32_t* index) {
    const __mmask8 k = static_cast<__mmask8>(mask);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm512_storeu_pd(value, _mm512_maskz_compress_pd(k, a.v));
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(index),
        _mm256_maskz_compress_epi32(k, _mm256_add_epi32(lane, _mm256_set1_epi32(first))));
    return __builtin_popcount(mask);
  }
};

constexpr int kDenseSamples = 6;  // register tile of the dense product, samples
constexpr int kDenseVectors = 4;  // and vectors of columns: 24 of 32 registers accumulate
constexpr int kListVectors = 8;   // vectors of columns that a list's rows are added to at a time

}  // namespace
