// SPDX-License-Identifier: Apache-2.0
// The primitives that are compiled once per instruction set, and their run-time choice.
//
// Everything that the recursion spends time on is one of these. The products keep one order of
// summation: rows in ascending order, chunk by chunk, one accumulator per output element and chunk.
// So the sparse and the dense product agree bit for bit, and a sample's result depends neither on
// its batch nor on its tile.
#pragma once

#include <cstdint>

#include "fastunroll/problem.h"

namespace fastunroll::cpu {

constexpr std::int64_t kBlockBytes = 512;  // columns of a packed block: eight 64-byte lines a row

constexpr std::int64_t kCacheBytes = 2 << 20;  // of a usual second level

constexpr std::int32_t kListEnd = INT32_MAX;  // an index behind every row

template <class T>
constexpr std::int64_t block_columns() {
  return kBlockBytes / static_cast<std::int64_t>(sizeof(T));
}

template <class T>
constexpr std::int64_t padded(std::int64_t cols) {
  return (cols + block_columns<T>() - 1) / block_columns<T>() * block_columns<T>();
}

// One block of its columns, of the matrix of layer 0.
template <class T>
PackedMatrix<T> column_block(const PackedMatrix<T>& matrix, std::int64_t block) {
  constexpr std::int64_t kColumns = block_columns<T>();
  const std::int64_t left = matrix.cols - block * kColumns;
  return {matrix.data + block * matrix.rows * kColumns, matrix.rows,
          left < kColumns ? left : kColumns, 0};
}

template <class T>
bool exceeds_cache(const PackedMatrix<T>& matrix) {
  return matrix.rows * matrix.cols * static_cast<std::int64_t>(sizeof(T)) > kCacheBytes;
}

// Compact rows of a tile: sample s has count[s] entries, ascending in index, from s * stride on,
// and behind them the index kListEnd.
template <class T>
struct Lists {
  std::int32_t* count = nullptr;
  std::int32_t* index = nullptr;
  T* value = nullptr;
  std::int64_t stride = 0;

  void end(std::int64_t sample, std::int32_t entries) const {
    count[sample] = entries;
    index[sample * stride + entries] = kListEnd;
  }
  // The lists of the samples from `sample` on.
  Lists from(std::int64_t sample) const {
    return {count + sample, index + sample * stride, value + sample * stride, stride};
  }
};

// The same entries by row: row i holds (sample, value) from begin[i] to begin[i + 1], in the order
// of the samples.
template <class T>
struct TransposedLists {
  const std::int32_t* begin = nullptr;
  const std::int32_t* sample = nullptr;
  const T* value = nullptr;
};

// One sample's step and shrinkage: u = y - step * v, x = prox(u; threshold). Step and threshold are
// single numbers or vectors.
template <class T>
struct ProxRow {
  std::int64_t n = 0;
  const T* y = nullptr;  // null: 0
  const T* v = nullptr;
  const T* step = nullptr;
  const T* threshold = nullptr;
  bool step_is_vector = false;
  bool threshold_is_vector = false;
  bool nonnegative = false;  // entries with u > threshold, not |u| > threshold
  Prox shrink = Prox::soft;  // what becomes of them
  T shape = 0;
  T* x = nullptr;  // padded row
};

// The slopes of a smooth, firm or SCAD shrinkage at entries of x, with respect to |u|, the
// threshold and the shape; those of the last two have the sign of x. The threshold is a single
// number or a vector over the entries.
template <class T>
struct SlopeRow {
  std::int64_t n = 0;
  const T* x = nullptr;
  const T* threshold = nullptr;
  bool threshold_is_vector = false;
  Prox shrink = Prox::smooth;
  T shape = 0;
  T* slope = nullptr;
  T* threshold_slope = nullptr;
  T* shape_slope = nullptr;
};

template <class T>
struct Kernels {
  // out_s += sum over the entries (i, a) of sample s of a * matrix[i, :].
  // `cursor` is scratch for one number per sample.
  void (*sparse_product)(std::int64_t samples, const Lists<T>& in, const PackedMatrix<T>& matrix,
                         std::int64_t layer, T* out, std::int64_t out_stride, std::int32_t* cursor);
  // out_s += sum over all rows i of in_s[i] * matrix[i, :].
  void (*dense_product)(std::int64_t samples, const T* in, std::int64_t in_stride,
                        const PackedMatrix<T>& matrix, std::int64_t layer, T* out,
                        std::int64_t out_stride);
  // out_s[p] += matrix[i_p, :] . vector_s for the entries p of sample s.
  void (*row_dots)(std::int64_t samples, const Lists<T>& rows, const PackedMatrix<T>& matrix,
                   std::int64_t layer, const T* vectors, std::int64_t vector_stride, T* out,
                   std::int32_t* cursor);
  // target[i - first, :] += sum over the entries (s, a) of row i of a * vector_s, for rows
  // first..last - 1 and one block of columns; target rows lie one block apart.
  void (*row_accumulate)(std::int64_t first, std::int64_t last, const TransposedLists<T>& entries,
                         const T* vectors, std::int64_t vector_stride, T* target);
  // Writes x, and lists its entries with not(|u| <= threshold), so that NaN is kept, or all of them
  // where the shrinkage is smooth; returns their number.
  std::int32_t (*prox)(const ProxRow<T>& row, std::int32_t* index, T* value);
  void (*prox_slopes)(const SlopeRow<T>& row);
  // out = -in, padded with zeros.
  void (*negate)(std::int64_t n, const T* in, std::int64_t padded_n, T* out);
  // y = x + momentum (x - previous); entries with y != 0 are listed. Returns their number.
  std::int32_t (*extrapolate)(std::int64_t n, const T* x, const T* previous, T momentum, T* y,
                              std::int32_t* index, T* value);
  T (*sum_of_squares)(std::int64_t padded_n, const T* row);
  // Sum of a[p] * b[p]; `signs` takes the sign of a[p] instead, and 0 for 0.
  T (*dot)(std::int64_t n, const T* a, const T* b, bool signs);
  // out = prox(u; t) for one row, soft, non-negative or smooth; t is one number or a vector.
  void (*shrink)(std::int64_t n, const T* u, const T* threshold, bool threshold_is_vector,
                 Prox prox, T* out);
  // grad_u = grad times the slope; returns the sum of the threshold's derivatives, and adds them
  // per atom to `threshold_terms` where it is not null.
  double (*shrink_backward)(std::int64_t n, const T* grad, const T* u, const T* threshold,
                            bool threshold_is_vector, Prox prox, T* grad_u,
                            double* threshold_terms);
};

// Rows that are summed from zero before they are added to the rest, which keeps the rounding error
// of long sums down; a chunk of one block is 64 KB, so that a tile's samples find most of it in the
// L1 cache.
constexpr std::int32_t kChunkRows = 128;

// Entries of a list per chunk up to which the samples are taken one after the other.
constexpr std::int64_t kShortChunk = 6;

struct KernelTable {
  const char* isa;
  Kernels<float> f32;
  Kernels<double> f64;
};

const KernelTable& generic_kernels() noexcept;
#if defined(FASTUNROLL_X86)
const KernelTable& avx2_kernels() noexcept;
const KernelTable& avx512_kernels() noexcept;
#elif defined(FASTUNROLL_ARM64)
const KernelTable& neon_kernels() noexcept;
#endif

// The table in use; `isa_error` is null, or says why FASTUNROLL_ISA could not be honoured.
const KernelTable& active_kernels();
const char* isa_error();
// Tables that this processor can run, best last, ended by null.
const KernelTable* const* supported_kernels();

template <class T>
const Kernels<T>& active();

}  // namespace fastunroll::cpu
