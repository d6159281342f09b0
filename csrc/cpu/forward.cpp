// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/check.h"
#include "cpu/tile.h"
#include "cpu/transpose.h"
#include "cpu/unrolled.h"

namespace fastunroll::cpu {
namespace {

// Samples of a tile; more of them where every layer reads a matrix of its own.
constexpr std::int64_t kTileSamples = 64;
constexpr std::int64_t kUntiedTileSamples = 128;

}  // namespace

template <class T>
Status unrolled_forward(const Problem<T>& problem, const ForwardOutputs<T>& out, int threads) {
  const Status status = check_values(problem);
  if (status != Status::ok) return status;
  const std::int64_t batch = problem.batch;
  const std::int64_t workers = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, batch));
  const bool untied = problem.gram_per_layer() || problem.weight_per_layer();
  const std::int64_t most = untied ? kUntiedTileSamples : kTileSamples;
  const std::int64_t size = std::min(most, (batch + workers - 1) / workers);
  const std::int64_t tiles = (batch + size - 1) / size;
  std::vector<std::unique_ptr<Tile<T>>> tile_of;
  try {
    if (out.tape != nullptr) out.tape->start(batch);
    for (std::int64_t w = 0; w < std::min(workers, tiles); ++w) {
      tile_of.push_back(std::make_unique<Tile<T>>(problem, size, false));
    }
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
  parallel_for(tiles, static_cast<int>(tile_of.size()), [&](std::int64_t t, int worker) {
    const std::int64_t first = t * size;
    tile_of[static_cast<std::size_t>(worker)]->run(first, std::min(size, batch - first), out);
  });
  for (const auto& tile : tile_of) {
    if (tile->status() != Status::ok) return tile->status();
  }
  return Status::ok;
}

template <class T>
Status multiply(const T* rows, std::int64_t batch, const PackedMatrix<T>& matrix,
                std::int64_t layers, T* out, int threads) {
  const Kernels<T>& kernels = active<T>();
  const std::int64_t tiles = (batch + kTileSamples - 1) / kTileSamples;
  const std::int64_t workers = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, tiles));
  std::vector<RowStore<T>> scratch;
  try {
    for (std::int64_t w = 0; w < workers; ++w) {
      scratch.emplace_back(1, std::min(kTileSamples, batch), matrix.cols);
    }
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
  parallel_for(layers * tiles, static_cast<int>(workers), [&](std::int64_t task, int worker) {
    const std::int64_t layer = task / tiles;
    const std::int64_t first = task % tiles * kTileSamples;
    const std::int64_t samples = std::min(kTileSamples, batch - first);
    const RowStore<T>& sums = scratch[static_cast<std::size_t>(worker)];
    std::fill(sums.rows(0), sums.rows(0) + samples * sums.stride(), T(0));
    kernels.dense_product(samples, rows + first * matrix.rows, matrix.rows, matrix, layer,
                          sums.rows(0), sums.stride());
    for (std::int64_t s = 0; s < samples; ++s) {
      const T* row = sums.row(0, s);
      std::copy(row, row + matrix.cols, out + (layer * batch + first + s) * matrix.cols);
    }
  });
  return Status::ok;
}

template <class T>
Status gram(const PackedMatrix<T>& dictionary_t, const PackedMatrix<T>& dictionary, T* out,
            int threads) {
  constexpr std::int64_t kWidth = block_columns<T>();
  const Kernels<T>& kernels = active<T>();
  const std::int64_t n = dictionary.cols;
  const std::int64_t m = dictionary.rows;
  // A task is a block of columns from the diagonal on down, and its mirror image.
  parallel_for((n + kWidth - 1) / kWidth, threads, [&](std::int64_t b, int) {
    const std::int64_t first = b * kWidth;
    T* const corner = out + first * (n + kWidth);
    std::fill(corner, corner + (n - first) * kWidth, T(0));
    for (std::int64_t top = 0; top < m; top += kWidth) {
      const PackedMatrix<T> rows{column_block(dictionary, b).data + top * kWidth,
                                 std::min(kWidth, m - top), kWidth, 0};
      const T* columns = column_block(dictionary_t, top / kWidth).data + first * kWidth;
      kernels.dense_product(n - first, columns, kWidth, rows, 0, corner, kWidth);
    }
    for (std::int64_t left = first + kWidth; left < n; left += kWidth) {
      const std::int64_t width = std::min(kWidth, n - left);
      T* const mirror = out + left * n + first * kWidth;
      transpose(width, kWidth, corner + (left - first) * kWidth, kWidth, mirror, kWidth);
      for (std::int64_t i = 0; i < kWidth; ++i) {
        std::fill(mirror + i * kWidth + width, mirror + (i + 1) * kWidth, T(0));
      }
    }
  });
  // No element is larger than the largest of the diagonal.
  for (std::int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(out[(i / kWidth * n + i) * kWidth + i % kWidth])) return Status::bad_gram;
  }
  return Status::ok;
}

template <class T>
bool pack(const T* source, std::int64_t layers, std::int64_t rows, std::int64_t cols,
          std::int64_t layer_stride, std::int64_t row_stride, std::int64_t col_stride, T* target) {
  constexpr std::int64_t kColumns = block_columns<T>();
  constexpr std::int64_t kRows = 16;  // copied at a time, and then looked at in the cache
  constexpr std::int64_t kSums = 16;
  T zeros[kSums] = {};  // stay 0 as long as all elements are finite
  for (std::int64_t l = 0; l < layers; ++l) {
    const T* matrix = source + l * layer_stride;
    for (std::int64_t first = 0; first < cols; first += kColumns) {
      const std::int64_t width = std::min(kColumns, cols - first);
      const T* block = matrix + first * col_stride;
      for (std::int64_t top = 0; top < rows; top += kRows) {
        const std::int64_t height = std::min(kRows, rows - top);
        const T* from = block + top * row_stride;
        if (col_stride == 1) {
          copy_rows(height, width, from, row_stride, target, kColumns);
        } else if (row_stride == 1) {
          transpose(width, height, from, col_stride, target, kColumns);
        } else {
          for (std::int64_t i = 0; i < height; ++i) {
            for (std::int64_t j = 0; j < width; ++j) {
              target[i * kColumns + j] = from[i * row_stride + j * col_stride];
            }
          }
        }
        for (std::int64_t i = 0; i < height; ++i, target += kColumns) {
          std::fill(target + width, target + kColumns, T(0));
          for (std::int64_t j = 0; j < kColumns; j += kSums) {
            for (std::int64_t k = 0; k < kSums; ++k) zeros[k] += target[j + k] * T(0);
          }
        }
      }
    }
  }
  return std::all_of(zeros, zeros + kSums, [](T zero) { return zero == T(0); });
}

template Status unrolled_forward<float>(const Problem<float>&, const ForwardOutputs<float>&, int);
template Status unrolled_forward<double>(const Problem<double>&, const ForwardOutputs<double>&,
                                         int);
template Status multiply<float>(const float*, std::int64_t, const PackedMatrix<float>&,
                                std::int64_t, float*, int);
template Status multiply<double>(const double*, std::int64_t, const PackedMatrix<double>&,
                                 std::int64_t, double*, int);
template Status gram<float>(const PackedMatrix<float>&, const PackedMatrix<float>&, float*, int);
template Status gram<double>(const PackedMatrix<double>&, const PackedMatrix<double>&, double*,
                             int);
template bool pack<float>(const float*, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                          std::int64_t, std::int64_t, float*);
template bool pack<double>(const double*, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                           std::int64_t, std::int64_t, double*);

}  // namespace fastunroll::cpu
