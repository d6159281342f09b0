// SPDX-License-Identifier: Apache-2.0
// Sums of outer products over the samples: gradients of matrices. A block owns a tile of the
// result and a range of the rows, which it walks in their order; the ranges are added up in their
// order afterwards.
#include "cuda/backward.h"

namespace fastunroll::cuda {
namespace {

constexpr int kSide = 64;  // columns of the left factor in a tile; of the right one a panel
constexpr int kSideRow = kSide + 8;
constexpr std::int64_t kWantedBlocks = 256;
constexpr std::int64_t kMostSplits = 16;

template <class T>
class OuterTile {
 public:
  static constexpr int kRows = kSlabRows<T>;
  static constexpr int kLeftSize = kRows * kSideRow;
  static constexpr int kStageSize = kLeftSize + kRows * kPanelRow;
  static constexpr int kBytes = SharedLayout::bytes<T>(kStages * kStageSize);

  __device__ __forceinline__ OuterTile(const OuterProducts<T>& p, std::int64_t splits)
      : p_(p), stages_(SharedLayout().take<T>(kStages * kStageSize)) {
    const int wide = panels(p.right_cols);
    const int high = round_up(p.left_cols, kSide) / kSide;
    std::int64_t index = block_index();
    panel_ = static_cast<int>(index % wide) * kPanel;
    side_ = static_cast<int>(index / wide % high) * kSide;
    index /= static_cast<std::int64_t>(wide) * high;
    const std::int64_t split = index % splits;
    layer_ = index / splits;
    next_ = p.rows * split / splits;
    end_ = p.rows * (split + 1) / splits;
    target_ = p.partials + index * p.left_cols * p.right_cols;
  }

  __device__ __forceinline__ void run(Kind kind) {
    Part<T, kSide> part;
    part.clear();
    const std::int64_t steps = (end_ - next_ + kRows - 1) / kRows;
    for (int i = 0; i < kStages - 1; ++i) fetch(i);
    for (std::int64_t step = 0; step < steps; ++step) {
      wait_copies<kStages - 2>();
      sync_block();
      fetch(static_cast<int>((step + kStages - 1) % kStages));
      const Shared<T> stage = stages_.from(static_cast<int>(step % kStages) * kStageSize);
      const Operand<T, true> left{stage, kSideRow};
      multiply(part, left, 0, stage.from(kLeftSize), kind);
    }
    wait_copies<0>();
    part.for_each_pair([&](int row, int column, Pack<T, 2> sum) {
      add(side_ + row, panel_ + column, sum.v[0]);
      add(side_ + row, panel_ + column + 1, sum.v[1]);
    });
  }

 private:
  __device__ __forceinline__ void add(std::int64_t i, std::int64_t j, T value) const {
    if (i < p_.left_cols && j < p_.right_cols) target_[i * p_.right_cols + j] += value;
  }

  __device__ __forceinline__ void fetch(int stage) {
    const Shared<T> to = stages_.from(stage * kStageSize);
    fetch_rows(to, kSide, kSideRow, p_.left, p_.left_row, p_.left_cols, side_);
    fetch_rows(to.from(kLeftSize), kPanel, kPanelRow, p_.right, p_.right_row, p_.right_cols,
               panel_);
    commit_copies();
    next_ += kRows;
  }

  // Columns [first, first + width) of the next rows, zeros outside of the matrix.
  __device__ __forceinline__ void fetch_rows(Shared<T> to, int width, int to_row, const T* from,
                                             std::int64_t from_row, std::int64_t cols, int first) {
    const bool wide = from_row % kPack<T> == 0 && reinterpret_cast<std::uintptr_t>(from) % 16 == 0;
    const int size = wide ? kPack<T> : 1;
    for (int e = thread_index() * size; e < kRows * width; e += kThreads * size) {
      const int row = e / width, column = e % width;
      const bool inside = next_ + row < end_ && first + column < cols;
      const T* const source = from + (layer_ * p_.rows + next_ + row) * from_row + first + column;
      const int at = row * to_row + column;
      if (wide) {
        copy_async<16>(to, at, inside ? source : from, inside);
      } else {
        copy_async<sizeof(T)>(to, at, inside ? source : from, inside);
      }
    }
  }

  const OuterProducts<T>& p_;
  const Shared<T> stages_;
  int panel_, side_;
  std::int64_t layer_, next_, end_;
  T* target_;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    outer_kernel(const __grid_constant__ OuterProducts<T> p, std::int64_t splits, Kind kind) {
  OuterTile<T>(p, splits).run(kind);
}

std::int64_t tiles(std::int64_t left_cols, std::int64_t right_cols) {
  return (left_cols + kSide - 1) / kSide * panels(right_cols);
}

}  // namespace

std::int64_t outer_splits(std::int64_t left_cols, std::int64_t right_cols, std::int64_t layers) {
  const std::int64_t splits = kWantedBlocks / (tiles(left_cols, right_cols) * layers);
  return splits < 1 ? 1 : splits > kMostSplits ? kMostSplits : splits;
}

template <class T>
Error add_outer_products(const OuterProducts<T>& p, Kind kind, std::int64_t splits, Stream stream) {
  const LaunchShape shape{tiles(p.left_cols, p.right_cols) * splits * p.layers, kThreads,
                          OuterTile<T>::kBytes};
  return launch(outer_kernel<T>, shape, stream, p, splits, kind);
}

template Error add_outer_products<float>(const OuterProducts<float>&, Kind, std::int64_t, Stream);
template Error add_outer_products<double>(const OuterProducts<double>&, Kind, std::int64_t, Stream);

}  // namespace fastunroll::cuda
