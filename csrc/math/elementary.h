// SPDX-License-Identifier: Apache-2.0
// exp and log1p for a type V of one or several lanes, such as Vec<T> of cpu/vec_*.h. Each is right
// to 1.5 units in the last place; NaN in gives NaN out.
#pragma once

#if defined(__CUDACC__)
#define FASTUNROLL_HD __host__ __device__ __forceinline__
#define FASTUNROLL_UNROLL
#else
#define FASTUNROLL_HD inline
#define FASTUNROLL_UNROLL _Pragma("GCC unroll 16")
#endif

namespace fastunroll::math {

// Numbers of terms, and ln 2 in two parts, of which the products of the first with the exponents
// that occur are exact.
template <class T>
struct Elementary;

template <>
struct Elementary<double> {
  static constexpr int kExpTerms = 13;
  static constexpr int kLogTerms = 10;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1;
  static constexpr double kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLowest = -708.0;     // e^x is a normal number from here on
  static constexpr double kInteger = 0x1.8p52;  // adding it rounds to an integer
  static constexpr double kExponentBias = 1023.0;
};

template <>
struct Elementary<float> {
  static constexpr int kExpTerms = 8;
  static constexpr int kLogTerms = 4;
  static constexpr float kLn2High = 0x1.62e4p-1f;
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kLog2e = 0x1.715476p+0f;
  static constexpr float kLowest = -87.0f;
  static constexpr float kInteger = 0x1.8p23f;
  static constexpr float kExponentBias = 127.0f;
};

template <class T>
FASTUNROLL_HD constexpr T inverse_factorial(int k) {
  T product = 1;
  for (int i = 2; i <= k; ++i) product *= static_cast<T>(i);
  return T(1) / product;
}

// a in the lanes of the mask, b in the others.
template <class V, class Mask>
FASTUNROLL_HD V choose(Mask mask, V a, V b) {
  return V::select(mask, a) + V::select(~mask, b);
}

template <class V>
struct Exponential {
  V value;      // e^x
  V minus_one;  // e^x - 1
};

// Of x - rest for x <= 0, where the rest is a rounding error of x; below the normal numbers e^x
// stops at the smallest of them.
template <template <class> class Vec, class T>
FASTUNROLL_HD Exponential<Vec<T>> exponential(Vec<T> x, Vec<T> rest = Vec<T>::broadcast(T(0))) {
  using V = Vec<T>;
  using C = Elementary<T>;
  const V integer = V::broadcast(C::kInteger);
  const V lowest = V::broadcast(C::kLowest);
  rest = V::select(V::not_less_equal(x, lowest), rest);
  x = V::max(lowest, x);
  const V n = V::fma(x, V::broadcast(C::kLog2e), integer) - integer;
  const V r = V::fnma(n, V::broadcast(C::kLn2High), x) - V::fma(n, V::broadcast(C::kLn2Low), rest);
  // e^r - 1 = r + r^2 (1/2! + r/3! + ...), |r| <= ln(2) / 2
  V p = V::broadcast(inverse_factorial<T>(C::kExpTerms));
  FASTUNROLL_UNROLL
  for (int k = C::kExpTerms - 1; k >= 2; --k) {
    p = V::fma(p, r, V::broadcast(inverse_factorial<T>(k)));
  }
  p = V::fma(r * r, p, r);
  // The sum's last bits are 2^n's exponent.
  const V scale = (n + V::broadcast(C::kInteger + C::kExponentBias)).last_bits_to_exponent();
  return {V::fma(scale, p, scale), V::fma(scale, p, scale - V::broadcast(T(1)))};
}

// log(1 + z) for 0 <= z <= 1.
template <template <class> class Vec, class T>
FASTUNROLL_HD Vec<T> log1p(Vec<T> z) {
  using V = Vec<T>;
  using C = Elementary<T>;
  const V half = V::broadcast(T(0.5));
  // 1 + z = 1 + f or 2 (1 + f), with 1 + f between 1 / sqrt(2) and sqrt(2)
  const auto upper = V::not_less_equal(z, V::broadcast(T(0.41421356237309505)));
  const V f = choose(upper, (z - V::broadcast(T(1))) * half, z);
  // log(1 + f) = 2 artanh(s) = f - s (f - 2 s^2 (1/3 + s^2/5 + ...)) with s = f / (2 + f)
  const V s = f / (V::broadcast(T(2)) + f);
  const V square = s * s;
  V p = V::broadcast(T(2) / T(2 * C::kLogTerms + 1));
  FASTUNROLL_UNROLL
  for (int k = C::kLogTerms - 1; k >= 1; --k) {
    p = V::fma(p, square, V::broadcast(T(2) / T(2 * k + 1)));
  }
  const V log = V::fnma(s, V::fnma(square, p, f), f);
  return (log + V::select(upper, V::broadcast(C::kLn2Low))) +
         V::select(upper, V::broadcast(C::kLn2High));
}

}  // namespace fastunroll::math
