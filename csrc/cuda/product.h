// SPDX-License-Identifier: Apache-2.0
// Products of a block's tile of samples with a matrix that streams by, panel by panel.
//
// A panel has 256 columns of the matrix. It comes in slabs of kSlabBytes, each some rows of the
// panel: kSlabRows rows of float or double, 16 rows of bfloat16 (as pairs of rows in 32 bits), and
// for the split format 16 rows of the high parts followed by a slab of the low parts. Rows have 264
// words, so that the 32 lanes of a warp read from 32 banks.
//
// Each of the 8 warps owns 32 columns of the panel and all samples; a lane's part of the result is
// that of mma.m16n8: for every tile of 16 samples and 8 columns, with g = lane / 4, t = lane % 4,
// rows g and g + 8, columns 2 t and 2 t + 1. The plain products keep to the same parts, so there is
// one epilogue for all.
//
// Counts for a tile of 64 samples and 8 rows (float32), per block: 131 k multiply-adds are 1024
// cycles of a multiprocessor's FMA units; three TF32 products are 384 cycles of its tensor cores at
// their full rate; either reads 24 KB from shared memory, 192 cycles. What streams in are 8.4 KB
// per slab: at 64 bytes a cycle from L2, 132 cycles. So both kinds are bound by arithmetic, and a
// tile of 32 samples with tensor cores is at the limit of L2.
#pragma once

#include "cuda/device.h"

namespace fastunroll::cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kPanel = 256;
constexpr int kPanelRow = kPanel + 8;
constexpr int kSlabBytes = 8 * kPanelRow * 4;
constexpr int kStages = 3;
template <class T>
constexpr int kSlabRows = 32 / static_cast<int>(sizeof(T));

// How the elements of one product are multiplied.
enum class Kind { plain, split, tf32, split_bf16, bf16 };

constexpr FASTUNROLL_HD int round_up(std::int64_t a, int to) {
  return static_cast<int>((a + to - 1) / to * to);
}
constexpr FASTUNROLL_HD int panels(std::int64_t cols) { return round_up(cols, kPanel) / kPanel; }

// Slabs of one panel of a matrix with this many rows.
template <class T>
constexpr FASTUNROLL_HD int slabs(std::int64_t rows, Kind kind) {
  if (kind == Kind::bf16) return round_up(rows, 16) / 16;
  if (kind == Kind::split_bf16) return round_up(rows, 16) / 16 * 2;
  return round_up(rows, kSlabRows<T>) / kSlabRows<T>;
}

// Elements between the rows of an operand in shared memory: no two of the rows that a warp reads
// at a time share banks.
template <class T>
constexpr FASTUNROLL_HD int operand_row(std::int64_t length, bool bf16) {
  return round_up(length, 16) + (bf16 ? 8 : 16 / static_cast<int>(sizeof(T)));
}

// A matrix, or one per layer, as a stream of slabs.
struct Streamed {
  const unsigned char* data = nullptr;
  std::int64_t layer_bytes = 0;
  int slabs = 0;

  template <class T>
  static __device__ __forceinline__ Streamed of(const PackedMatrix<T>& matrix, Kind kind) {
    return {reinterpret_cast<const unsigned char*>(matrix.data),
            matrix.layer_stride * static_cast<std::int64_t>(sizeof(T)),
            cuda::slabs<T>(matrix.rows, kind) * panels(matrix.cols)};
  }
};

constexpr int kPipelineBytes = kStages * kSlabBytes;

// Slabs of a layer's matrices, over and over, copied to shared memory two ahead of their use.
// `matrix(i)` is the i-th matrix of a layer; one without slabs comes after the last.
template <class Matrices>
class Pipeline {
 public:
  // `rounds` times the layers first, first + step, ... of which there are `layers`.
  __device__ __forceinline__ Pipeline(Shared<float> stages, Matrices matrices, int first,
                                      int layers, int step, int rounds)
      : stages_(stages),
        matrices_(matrices),
        first_(first),
        step_(step),
        layers_(layers),
        rounds_(layers > 0 ? rounds : 0),
        in_round_(layers),
        layer_(first) {
    if (rounds_ > 0) enter(matrices_(0));
    for (int i = 0; i < kStages - 1; ++i) fetch();
  }

  // The next slab. Between two calls all threads of the block are done with the one before.
  __device__ __forceinline__ Shared<float> next() {
    wait_copies<kStages - 2>();
    sync_block();
    fetch();
    const Shared<float> slab = stages_.from(use_ * (kSlabBytes / 4));
    use_ = use_ + 1 == kStages ? 0 : use_ + 1;
    return slab;
  }

 private:
  __device__ __forceinline__ void enter(const Streamed& matrix) {
    source_ = matrix.data + layer_ * matrix.layer_bytes;
    slabs_ = matrix.slabs;
  }

  __device__ __forceinline__ void fetch() {
    if (rounds_ > 0) {
      const Shared<float> stage = stages_.from(fill_ * (kSlabBytes / 4));
      const auto* const from = reinterpret_cast<const float*>(source_);
      for (int i = 4 * thread_index(); i < kSlabBytes / 4; i += 4 * kThreads) {
        copy_async<16>(stage, i, from + i);
      }
      fill_ = fill_ + 1 == kStages ? 0 : fill_ + 1;
      source_ += kSlabBytes;
      if (--slabs_ == 0) advance();
    }
    commit_copies();
  }

  __device__ __forceinline__ void advance() {
    matrix_ ^= 1;
    if (matrix_ == 1 && matrices_(1).slabs > 0) {
      enter(matrices_(1));
      return;
    }
    matrix_ = 0;
    layer_ += step_;
    if (--in_round_ == 0) {
      in_round_ = layers_;
      layer_ = first_;
      --rounds_;
    }
    enter(matrices_(0));
  }

  const Shared<float> stages_;
  const Matrices matrices_;
  const int first_, step_, layers_;
  int rounds_;    // left to fetch
  int in_round_;  // layers left
  int layer_;
  int matrix_ = 0;
  int slabs_ = 0;  // left of the matrix
  const unsigned char* source_ = nullptr;
  int fill_ = 0;
  int use_ = 0;
};

// An operand in shared memory: element (sample, depth) at sample * row + depth, or with kTransposed
// at depth * row + sample.
template <class T, bool kTransposed = false>
struct Operand {
  Shared<T> data;
  int row;

  __device__ __forceinline__ int at(int sample, int depth) const {
    return kTransposed ? depth * row + sample : sample * row + depth;
  }
};

// A warp's part of kSamples rows and 256 columns.
template <class T, int kSamples>
struct Part {
  static constexpr int kTiles = kSamples / 16;
  T c[kTiles][4][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < kTiles * 16; ++i) c[i / 16][i / 4 % 4][i % 4] = T(0);
  }

  // body(sample, column of the panel, pair of values at this and the next column); uses the part
  // up. Registers cannot be indexed by the counter of a loop, so the tiles of 16 samples move up:
  // a few moves, for code of one tile instead of four.
  template <class Body>
  __device__ __forceinline__ void for_each_pair(Body body) {
#pragma unroll 1
    for (int first = 0; first < kSamples; first += 16) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        body(first + i / 4 * 8 + lane() / 4, warp() * 32 + i % 4 * 8 + lane() % 4 * 2,
             Pack<T, 2>{{c[0][i % 4][i / 4 * 2], c[0][i % 4][i / 4 * 2 + 1]}});
      }
#pragma unroll
      for (int i = 0; i < (kTiles - 1) * 16; ++i) {
        c[i / 16][i / 4 % 4][i % 4] = c[i / 16 + 1][i / 4 % 4][i % 4];
      }
    }
  }
};

// part += operand[:, depth:] slab by multiplications and additions.
template <class T, int kSamples, bool kTransposed>
__device__ __forceinline__ void multiply_plain(Part<T, kSamples>& part,
                                               Operand<T, kTransposed> operand, int depth,
                                               Shared<T> slab) {
  constexpr int kStep = kTransposed ? 1 : kPack<T>;
#pragma unroll
  for (int k = 0; k < kSlabRows<T>; k += kStep) {
    Pack<T, kStep> a[kSamples / 8];
#pragma unroll
    for (int i = 0; i < kSamples / 8; ++i) {
      a[i] = operand.data.template get<kStep>(operand.at(i * 8 + lane() / 4, depth + k));
    }
#pragma unroll
    for (int j = 0; j < kStep; ++j) {
#pragma unroll
      for (int nt = 0; nt < 4; ++nt) {
        const int column = warp() * 32 + nt * 8 + lane() % 4 * 2;
        const Pack<T, 2> b = slab.template get<2>((k + j) * kPanelRow + column);
#pragma unroll
        for (int i = 0; i < kSamples / 8; ++i) {
          T* const c = part.c[i / 2][nt] + i % 2 * 2;
          c[0] = std::fma(a[i].v[j], b.v[0], c[0]);
          c[1] = std::fma(a[i].v[j], b.v[1], c[1]);
        }
      }
    }
  }
}

// A number as the sum of two TF32 numbers, 21 bits behind the point.
struct SplitTf32 {
  std::uint32_t high, low;
  __device__ __forceinline__ static SplitTf32 of(float a) {
    const std::uint32_t high = to_tf32(a);
    return {high, to_tf32(a - as_float(high))};
  }
};

// The same on tensor cores. They add towards zero, so with kSplit a slab's three products are
// summed by themselves and then added to the part as float32.
template <bool kSplit, int kSamples, bool kTransposed>
__device__ __forceinline__ void multiply_tf32(Part<float, kSamples>& part,
                                              Operand<float, kTransposed> operand, int depth,
                                              Shared<float> slab) {
  const int g = lane() / 4, t = lane() % 4;
  std::uint32_t b[4][2], b_low[4][2];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float value = slab[(t + i % 2 * 4) * kPanelRow + warp() * 32 + i / 2 * 8 + g];
    const SplitTf32 parts = SplitTf32::of(value);
    b[i / 2][i % 2] = parts.high;
    b_low[i / 2][i % 2] = parts.low;
  }
#pragma unroll
  for (int mt = 0; mt < Part<float, kSamples>::kTiles; ++mt) {
    std::uint32_t a[4], a_low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float value = operand.data[operand.at(mt * 16 + g + i % 2 * 8, depth + t + i / 2 * 4)];
      const SplitTf32 parts = SplitTf32::of(value);
      a[i] = parts.high;
      a_low[i] = parts.low;
    }
#pragma unroll
    for (int nt = 0; nt < 4; ++nt) {
      if (!kSplit) {
        mma_tf32(part.c[mt][nt], a, b[nt]);
        continue;
      }
      float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      mma_tf32(sum, a_low, b[nt]);
      mma_tf32(sum, a, b_low[nt]);
      mma_tf32(sum, a, b[nt]);
#pragma unroll
      for (int j = 0; j < 4; ++j) part.c[mt][nt][j] += sum[j];
    }
  }
}

// part += operand (rounded to bfloat16) slab, and with kRest also operand's rest times slab.
template <bool kRest, int kSamples>
__device__ __forceinline__ void multiply_bf16(Part<float, kSamples>& part, Operand<float> operand,
                                              int depth, Shared<std::uint32_t> slab) {
  const int g = lane() / 4, t = lane() % 4;
  std::uint32_t b[4][2];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    b[i / 2][i % 2] = slab[(t + i % 2 * 4) * kPanelRow + warp() * 32 + i / 2 * 8 + g];
  }
#pragma unroll
  for (int mt = 0; mt < Part<float, kSamples>::kTiles; ++mt) {
    std::uint32_t a[4], a_low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto x =
          operand.data.get<2>(operand.at(mt * 16 + g + i % 2 * 8, depth + 2 * t + i / 2 * 8));
      a[i] = to_bf16(x.v[0], x.v[1]);
      a_low[i] = to_bf16(x.v[0] - as_float(a[i] << 16), x.v[1] - as_float(a[i] & 0xffff0000u));
    }
#pragma unroll
    for (int nt = 0; nt < 4; ++nt) {
      float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      if (kRest) mma_bf16(sum, a_low, b[nt]);
      mma_bf16(sum, a, b[nt]);
#pragma unroll
      for (int j = 0; j < 4; ++j) part.c[mt][nt][j] += sum[j];
    }
  }
}

// part += operand[:, depth:] slab, of the kinds for a plain layout. All threads agree on the kind,
// and one slab's work hides that it is asked for.
template <class T, int kSamples, bool kTransposed>
__device__ __forceinline__ void multiply(Part<T, kSamples>& part, Operand<T, kTransposed> operand,
                                         int depth, Shared<T> slab, Kind kind) {
  if constexpr (sizeof(T) == 4) {
    if (kind == Kind::split) return multiply_tf32<true>(part, operand, depth, slab);
    if (kind == Kind::tf32) return multiply_tf32<false>(part, operand, depth, slab);
  }
  multiply_plain(part, operand, depth, slab);
}

// part = operand times the next panel of the pipeline, whose matrix has `rows` rows.
template <class T, int kSamples, class Matrices>
__device__ __forceinline__ void product(Part<T, kSamples>& part, Pipeline<Matrices>& pipeline,
                                        Operand<T> operand, std::int64_t rows, Kind kind) {
  part.clear();
  const int count = slabs<T>(rows, kind);
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    const Shared<float> slab = pipeline.next();
    if constexpr (sizeof(T) == 4) {
      if (kind == Kind::split_bf16 || kind == Kind::bf16) {
        const bool split = kind == Kind::split_bf16;  // slabs of high and of low parts in turn
        const int depth = (split ? i / 2 : i) * 16;
        const auto pairs = slab.template as<std::uint32_t>();
        if (split && i % 2 == 0) {
          multiply_bf16<true>(part, operand, depth, pairs);
        } else {
          multiply_bf16<false>(part, operand, depth, pairs);
        }
        continue;
      }
    }
    multiply(part, operand, i * kSlabRows<T>, slab.template as<T>(), kind);
  }
}

}  // namespace fastunroll::cuda
