// SPDX-License-Identifier: Apache-2.0
// Bodies of the primitives of kernels.h. Included once by each kernels_<isa>.cpp, after its vec
// header. No standard containers, no static objects, nothing that the linker could share between
// instruction sets: everything lives in an anonymous namespace.

#include "cpu/kernels.h"
#include "cpu/shrinkage.inl"

namespace {

using fastunroll::PackedMatrix;
using fastunroll::cpu::block_columns;
using fastunroll::cpu::kChunkRows;
using fastunroll::cpu::kListEnd;
using fastunroll::cpu::kShortChunk;
using fastunroll::cpu::Lists;
using fastunroll::cpu::TransposedLists;

template <class T>
constexpr int kBlockVectors = static_cast<int>(block_columns<T>()) / Vec<T>::kLanes;

// The block's columns [block * columns, ...) of `matrix` in `layer`, row 0.
template <class T>
inline const T* block_start(const PackedMatrix<T>& matrix, std::int64_t layer, std::int64_t block) {
  return matrix.data + layer * matrix.layer_stride + block * matrix.rows * block_columns<T>();
}

template <class T>
inline std::int64_t block_count(const PackedMatrix<T>& matrix) {
  return (matrix.cols + block_columns<T>() - 1) / block_columns<T>();
}

// Sum over the entries of one list, from `p` on, whose index is below `end_row`, of their values
// times kListVectors vectors of their rows. Returns the first entry left.
template <class T>
inline std::int32_t sum_rows(const T* block, const std::int32_t* index, const T* value,
                             std::int32_t p, std::int32_t end_row, Vec<T>* sum) {
#pragma GCC unroll 16
  for (int j = 0; j < kListVectors; ++j) sum[j] = Vec<T>::broadcast(T(0));
  for (; index[p] < end_row; ++p) {
    const T* row = block + static_cast<std::int64_t>(index[p]) * block_columns<T>();
    const Vec<T> a = Vec<T>::broadcast(value[p]);
#pragma GCC unroll 16
    for (int j = 0; j < kListVectors; ++j) {
      sum[j] = Vec<T>::fma(a, Vec<T>::load(row + j * Vec<T>::kLanes), sum[j]);
    }
  }
  return p;
}

// Adds one chunk of rows to the output of one sample.
template <class T>
inline std::int32_t add_chunk(const T* block, const std::int32_t* index, const T* value,
                              std::int32_t p, std::int32_t end_row, T* out) {
  Vec<T> sum[kListVectors];
  p = sum_rows(block, index, value, p, end_row, sum);
#pragma GCC unroll 16
  for (int j = 0; j < kListVectors; ++j) {
    (Vec<T>::load(out + j * Vec<T>::kLanes) + sum[j]).store(out + j * Vec<T>::kLanes);
  }
  return p;
}

// Adds all chunks to the output of one sample, in the same order.
template <class T>
inline void add_chunks(const T* block, const std::int32_t* index, const T* value, T* out) {
  Vec<T> total[kListVectors];
#pragma GCC unroll 16
  for (int j = 0; j < kListVectors; ++j) total[j] = Vec<T>::load(out + j * Vec<T>::kLanes);
  for (std::int32_t p = 0; index[p] != kListEnd;) {
    Vec<T> sum[kListVectors];
    p = sum_rows(block, index, value, p, (index[p] / kChunkRows + 1) * kChunkRows, sum);
#pragma GCC unroll 16
    for (int j = 0; j < kListVectors; ++j) total[j] = total[j] + sum[j];
  }
#pragma GCC unroll 16
  for (int j = 0; j < kListVectors; ++j) total[j].store(out + j * Vec<T>::kLanes);
}

// Long lists go chunk by chunk, so that the samples find its rows in the L1 cache; short ones share
// few rows, and the sums of a sample stay in registers.
template <class T>
inline bool by_chunk(std::int64_t samples, const Lists<T>& lists, const PackedMatrix<T>& matrix) {
  const std::int64_t chunks = (matrix.rows + kChunkRows - 1) / kChunkRows;
  std::int64_t entries = 0;
  for (std::int64_t s = 0; s < samples; ++s) entries += lists.count[s];
  return samples > 1 && entries > samples * chunks * kShortChunk;
}

template <class T>
void sparse_product(std::int64_t samples, const Lists<T>& in, const PackedMatrix<T>& matrix,
                    std::int64_t layer, T* out, std::int64_t out_stride, std::int32_t* cursor) {
  const std::int64_t blocks = block_count(matrix);
  const bool chunked = by_chunk(samples, in, matrix);
  constexpr int kPasses = kBlockVectors<T> / kListVectors;
  for (std::int64_t pass = 0; pass < blocks * kPasses; ++pass) {
    const std::int64_t column = pass % kPasses * kListVectors * Vec<T>::kLanes;
    const T* block = block_start(matrix, layer, pass / kPasses) + column;
    T* target = out + pass / kPasses * block_columns<T>() + column;
    if (!chunked) {
      for (std::int64_t s = 0; s < samples; ++s) {
        const std::int64_t offset = s * in.stride;
        add_chunks(block, in.index + offset, in.value + offset, target + s * out_stride);
      }
      continue;
    }
    for (std::int64_t s = 0; s < samples; ++s) cursor[s] = 0;
    for (std::int64_t first = 0; first < matrix.rows; first += kChunkRows) {
      const auto end_row = static_cast<std::int32_t>(
          first + kChunkRows < matrix.rows ? first + kChunkRows : matrix.rows);
      for (std::int64_t s = 0; s < samples; ++s) {
        const std::int64_t offset = s * in.stride;
        cursor[s] = add_chunk(block, in.index + offset, in.value + offset, cursor[s], end_row,
                              target + s * out_stride);
      }
    }
  }
}

// Register tile of the dense product: kSamples samples by kVectors vectors of columns.
template <class T, int kSamples, int kVectors>
inline void dense_tile(const T* in, std::int64_t in_stride, const T* block, std::int64_t first,
                       std::int64_t last, T* out, std::int64_t out_stride) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> sum[kSamples][kVectors];
#pragma GCC unroll 8
  for (int s = 0; s < kSamples; ++s) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      sum[s][j] = Vec<T>::broadcast(T(0));
    }
  }
  for (std::int64_t i = first; i < last; ++i) {
    Vec<T> row[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      row[j] = Vec<T>::load(block + i * block_columns<T>() + j * kLanes);
    }
#pragma GCC unroll 8
    for (int s = 0; s < kSamples; ++s) {
      const Vec<T> a = Vec<T>::broadcast(in[s * in_stride + i]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[s][j] = Vec<T>::fma(a, row[j], sum[s][j]);
    }
  }
#pragma GCC unroll 8
  for (int s = 0; s < kSamples; ++s) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      T* target = out + s * out_stride + j * kLanes;
      (Vec<T>::load(target) + sum[s][j]).store(target);
    }
  }
}

// One register tile for all columns of a block.
template <class T, int kSamples, int kVectors>
inline void dense_block(const T* in, std::int64_t in_stride, const T* block, std::int64_t first,
                        std::int64_t last, T* out, std::int64_t out_stride) {
  for (int j = 0; j < kBlockVectors<T>; j += kVectors) {
    dense_tile<T, kSamples, kVectors>(in, in_stride, block + j * Vec<T>::kLanes, first, last,
                                      out + j * Vec<T>::kLanes, out_stride);
  }
}

template <class T>
void dense_product(std::int64_t samples, const T* in, std::int64_t in_stride,
                   const PackedMatrix<T>& matrix, std::int64_t layer, T* out,
                   std::int64_t out_stride) {
  const std::int64_t blocks = block_count(matrix);
  for (std::int64_t b = 0; b < blocks; ++b) {
    const T* block = block_start(matrix, layer, b);
    T* target = out + b * block_columns<T>();
    for (std::int64_t first = 0; first < matrix.rows; first += kChunkRows) {
      const std::int64_t last = first + kChunkRows < matrix.rows ? first + kChunkRows : matrix.rows;
      std::int64_t s = 0;
      for (; s + kDenseSamples <= samples; s += kDenseSamples) {
        dense_block<T, kDenseSamples, kDenseVectors>(in + s * in_stride, in_stride, block, first,
                                                     last, target + s * out_stride, out_stride);
      }
      for (; s < samples; ++s) {
        dense_block<T, 1, kListVectors>(in + s * in_stride, in_stride, block, first, last,
                                        target + s * out_stride, out_stride);
      }
    }
  }
}

// Dot products of one block of columns with the listed rows from `p` on, up to `end_row`, four rows
// at a time; the last ones are filled up with the last row. Returns the first entry left.
template <class T>
inline std::int32_t dot_rows(const T* block, const std::int32_t* index, std::int32_t p,
                             std::int32_t end_row, const T* vector, T* out) {
  constexpr int kLanes = Vec<T>::kLanes;
  while (index[p] < end_row) {
    const T* row[4];
    std::int32_t rows = 0;
    for (int r = 0; r < 4; ++r) {
      if (index[p + rows] < end_row) ++rows;
      row[r] = block + static_cast<std::int64_t>(index[p + rows - 1]) * block_columns<T>();
    }
    Vec<T> sum[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) sum[r] = Vec<T>::broadcast(T(0));
#pragma GCC unroll 16
    for (int j = 0; j < kBlockVectors<T>; ++j) {
      const Vec<T> a = Vec<T>::load(vector + j * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r)
        sum[r] = Vec<T>::fma(a, Vec<T>::load(row[r] + j * kLanes), sum[r]);
    }
    T dots[4];
    Vec<T>::sums(sum, dots);
    for (std::int32_t r = 0; r < rows; ++r) out[p + r] += dots[r];
    p += rows;
  }
  return p;
}

template <class T>
void block_dots(std::int64_t samples, const Lists<T>& rows, const T* block, std::int64_t chunk_rows,
                std::int64_t all_rows, const T* vectors, std::int64_t vector_stride, T* out,
                std::int32_t* cursor) {
  for (std::int64_t s = 0; s < samples; ++s) cursor[s] = 0;
  for (std::int64_t first = 0; first < all_rows; first += chunk_rows) {
    const auto end_row =
        static_cast<std::int32_t>(first + chunk_rows < all_rows ? first + chunk_rows : all_rows);
    for (std::int64_t s = 0; s < samples; ++s) {
      cursor[s] = dot_rows(block, rows.index + s * rows.stride, cursor[s], end_row,
                           vectors + s * vector_stride, out + s * rows.stride);
    }
  }
}

template <class T>
void row_dots(std::int64_t samples, const Lists<T>& rows, const PackedMatrix<T>& matrix,
              std::int64_t layer, const T* vectors, std::int64_t vector_stride, T* out,
              std::int32_t* cursor) {
  const std::int64_t chunk = by_chunk(samples, rows, matrix) ? kChunkRows : matrix.rows;
  for (std::int64_t b = 0; b < block_count(matrix); ++b) {
    const T* block = block_start(matrix, layer, b);
    block_dots(samples, rows, block, chunk, matrix.rows, vectors + b * block_columns<T>(),
               vector_stride, out, cursor);
  }
}

template <class T>
void row_accumulate(std::int64_t first, std::int64_t last, const TransposedLists<T>& entries,
                    const T* vectors, std::int64_t vector_stride, T* target) {
  constexpr int kLanes = Vec<T>::kLanes;
  for (int column = 0; column < kBlockVectors<T> * kLanes; column += kListVectors * kLanes) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int32_t begin = entries.begin[i];
      const std::int32_t end = entries.begin[i + 1];
      if (begin == end) continue;
      Vec<T> sum[kListVectors];
#pragma GCC unroll 16
      for (int j = 0; j < kListVectors; ++j) sum[j] = Vec<T>::broadcast(T(0));
      for (std::int32_t e = begin; e < end; ++e) {
        const T* vector = vectors + entries.sample[e] * vector_stride + column;
        const Vec<T> a = Vec<T>::broadcast(entries.value[e]);
#pragma GCC unroll 16
        for (int j = 0; j < kListVectors; ++j) {
          sum[j] = Vec<T>::fma(a, Vec<T>::load(vector + j * kLanes), sum[j]);
        }
      }
      T* row = target + (i - first) * block_columns<T>() + column;
#pragma GCC unroll 16
      for (int j = 0; j < kListVectors; ++j) {
        (Vec<T>::load(row + j * kLanes) + sum[j]).store(row + j * kLanes);
      }
    }
  }
}

template <class T>
void negate(std::int64_t n, const T* in, std::int64_t padded_n, T* out) {
  constexpr int kLanes = Vec<T>::kLanes;
  const Vec<T> zero = Vec<T>::broadcast(T(0));
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) (zero - Vec<T>::load(in + i)).store(out + i);
  if (i < n) {
    (zero - Vec<T>::load_partial(in + i, static_cast<int>(n - i))).store(out + i);
    i += kLanes;
  }
  for (; i < padded_n; i += kLanes) zero.store(out + i);
}

template <class T>
std::int32_t extrapolate(std::int64_t n, const T* x, const T* previous, T momentum, T* y,
                         std::int32_t* index, T* value) {
  constexpr int kLanes = Vec<T>::kLanes;
  const Vec<T> beta = Vec<T>::broadcast(momentum);
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const Vec<T> now = Vec<T>::load(x + i);
    const Vec<T> next = Vec<T>::fma(beta, now - Vec<T>::load(previous + i), now);
    next.store(y + i);
    std::uint32_t mask = Vec<T>::not_equal(next, Vec<T>::broadcast(T(0)));
    if (n - i < kLanes) mask &= (1u << (n - i)) - 1u;
    if (mask != 0) {
      count +=
          Vec<T>::compress(mask, next, static_cast<std::int32_t>(i), value + count, index + count);
    }
  }
  return count;
}

template <class T>
T sum_of_squares(std::int64_t padded_n, const T* row) {
  constexpr int kLanes = Vec<T>::kLanes;
  Vec<T> sum[4];
  for (int j = 0; j < 4; ++j) sum[j] = Vec<T>::broadcast(T(0));
  for (std::int64_t i = 0; i < padded_n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vec<T> a = Vec<T>::load(row + i + j * kLanes);
      sum[j] = Vec<T>::fma(a, a, sum[j]);
    }
  }
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])).sum();
}

template <class T, bool kSigns>
inline T dot_product(std::int64_t n, const T* a, const T* b) {
  constexpr int kLanes = Vec<T>::kLanes;
  const Vec<T> one = Vec<T>::broadcast(T(1));
  const Vec<T> zero = Vec<T>::broadcast(T(0));
  const auto factor = [=](Vec<T> x) {
    return kSigns ? Vec<T>::select(Vec<T>::not_equal(x, zero), x.copysign_to(one)) : x;
  };
  Vec<T> sum[2] = {zero, zero};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    sum[0] = Vec<T>::fma(factor(Vec<T>::load(a + i)), Vec<T>::load(b + i), sum[0]);
    sum[1] =
        Vec<T>::fma(factor(Vec<T>::load(a + i + kLanes)), Vec<T>::load(b + i + kLanes), sum[1]);
  }
  for (; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    sum[0] = Vec<T>::fma(factor(Vec<T>::load_partial(a + i, lanes)),
                         Vec<T>::load_partial(b + i, lanes), sum[0]);
  }
  return (sum[0] + sum[1]).sum();
}

template <class T>
T dot(std::int64_t n, const T* a, const T* b, bool signs) {
  return signs ? dot_product<T, true>(n, a, b) : dot_product<T, false>(n, a, b);
}

template <class T>
constexpr fastunroll::cpu::Kernels<T> make_kernels() {
  return {sparse_product<T>, dense_product<T>, row_dots<T>, row_accumulate<T>,
          prox<T>,           prox_slopes<T>,   negate<T>,   extrapolate<T>,
          sum_of_squares<T>, dot<T>,           shrink<T>,   shrink_backward<T>};
}

}  // namespace

#define FASTUNROLL_KERNEL_TABLE(isa)                                                            \
  namespace fastunroll::cpu {                                                                   \
  const KernelTable& isa##_kernels() noexcept {                                                 \
    static constexpr KernelTable table = {#isa, make_kernels<float>(), make_kernels<double>()}; \
    return table;                                                                               \
  }                                                                                             \
  }
