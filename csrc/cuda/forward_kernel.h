// SPDX-License-Identifier: Apache-2.0
// The forward pass over tiles: a block takes kSamples samples through all layers while the matrices
// stream by; between the layers nothing but x and the residual is kept, in shared memory.
//
// Where a layer needs no more of v than one atom at a time and the product does not read x, a
// warp's registers go straight through the shrinkage into x. Else (Gram form, step rule, support
// selection, momentum, curved shrinkage) v goes to a scratch in device memory, which L2 holds, and
// a pass over rows follows: 4 n bytes per sample and layer each way.
#pragma once

#include "cuda/forward.h"
#include "cuda/rows.h"
#include "cuda/tile.h"

namespace fastunroll::cuda {

template <class T, Precision kPrecision, int kSamples>
class ForwardTile {
 public:
  static constexpr bool kBf16 = kPrecision == Precision::mixed;

  __device__ __forceinline__ ForwardTile(const ForwardArguments<T>& a)
      : a_(a),
        net_(a.net),
        n_(static_cast<int>(a.net.n_atoms)),
        m_(static_cast<int>(a.net.n_measurements)),
        row_n_(static_cast<int>(trace_row(n_))),
        shared_(TileShared<T>::make(kSamples, a.net, kBf16)) {}

  __device__ __forceinline__ void run() {
    const std::int64_t tiles = (net_.batch + kSamples - 1) / kSamples;
    const auto mine = static_cast<int>((tiles - block_index() + block_count() - 1) / block_count());
    const auto matrices = [this](int i) {
      constexpr Kind kLast = direction_kind(kPrecision);
      if (!net_.factored()) return i == 0 ? Streamed::of(net_.gram, kLast) : Streamed{};
      return i == 0 ? Streamed::of(net_.dictionary_t, residual_kind(kPrecision))
                    : Streamed::of(net_.weight, kLast);
    };
    Pipeline pipeline(shared_.stages, matrices, 0, static_cast<int>(net_.n_layers), 1, mine);
    for (std::int64_t tile = block_index(); tile < tiles; tile += block_count()) {
      first_ = tile * kSamples;
      count_ = static_cast<int>(net_.batch - first_ < kSamples ? net_.batch - first_ : kSamples);
      sync_block();
      begin();
      for (int k = 0; k < net_.n_layers; ++k) layer(pipeline, k);
      sync_block();
      end();
    }
    wait_copies<0>();
  }

 private:
  __device__ __forceinline__ T* scratch(int slot, int s) const {
    const std::int64_t slots = net_.momentum != nullptr ? 3 : 1;
    return a_.scratch + ((block_index() * slots + slot) * kSamples + s) * row_n_;
  }
  // v of layer k: in the trace where there is one.
  __device__ __forceinline__ T* direction(int k, int s) const {
    if (a_.trace.directions == nullptr) return scratch(0, s);
    return a_.trace.directions + (k * net_.batch + first_ + s) * row_n_;
  }
  // x_k or x_{k-1}, in turn.
  __device__ __forceinline__ T* history(int k, int s) const { return scratch(1 + (k & 1), s); }

  // body(sample of the tile, atom), a warp per sample, over all atoms of the operand's rows.
  template <class Body>
  __device__ __forceinline__ void for_each_atom(Body body) const {
    for (int s = warp(); s < kSamples; s += kWarps) {
      for (int i = lane(); i < shared_.atoms.row; i += kWarp) body(s, i);
    }
  }

  __device__ __forceinline__ void begin() const {
    for_each_atom([&](int s, int i) {
      const bool inside = s < count_ && i < n_;
      const std::int64_t at = (first_ + s) * n_ + i;
      const T x = inside && net_.initial != nullptr ? net_.initial[at] : T(0);
      T y = x;
      if (inside && net_.momentum != nullptr) {
        const T before = net_.previous != nullptr ? net_.previous[at] : x;
        history(0, s)[i] = x;
        history(1, s)[i] = before;
        y = extrapolated(0, x, before);
      }
      put_operand(0, s, i, x, y);
      if (inside && a_.iterates != nullptr) a_.iterates[at] = x;
    });
  }

  __device__ __forceinline__ T extrapolated(std::int64_t k, T x, T before) const {
    return std::fma(net_.momentum[k], x - before, x);
  }

  // The point at which layer k takes its gradient.
  __device__ __forceinline__ void put_operand(std::int64_t k, int s, int i, T x, T y) const {
    shared_.atoms.data[shared_.atoms.at(s, i)] = net_.heavy_ball ? x : y;
    if (a_.trace.points != nullptr && s < count_ && i < n_ && k < net_.n_layers) {
      a_.trace.points[(k * net_.batch + first_ + s) * row_n_ + i] = y;
    }
  }

  __device__ __forceinline__ void end() const {
    if (a_.codes == nullptr) return;
    for_each_atom([&](int s, int i) {
      if (s >= count_ || i >= n_) return;
      a_.codes[(first_ + s) * n_ + i] =
          net_.momentum != nullptr ? history(static_cast<int>(net_.n_layers), s)[i]
                                   : static_cast<T>(shared_.atoms.data[shared_.atoms.at(s, i)]);
    });
  }

  template <class Slabs>
  __device__ __forceinline__ void layer(Slabs& pipeline, int k) const {
    if (net_.factored()) {
      for (int panel = 0; panel < panels(m_); ++panel) residual(pipeline, k, panel);
    }
    for (int panel = 0; panel < panels(n_); ++panel) {
      Part<T, kSamples> part;
      product<direction_kind(kPrecision)>(part, pipeline,
                                          net_.factored() ? shared_.measurements : shared_.atoms,
                                          net_.factored() ? m_ : n_);
      if (deferred(net_)) {
        store_direction(part, k, panel);
      } else {
        shrink(part, k, panel);
      }
    }
    if (!deferred(net_)) return;
    sync_block();
    for (int s = warp(); s < kSamples; s += kWarps) {
      if (s < count_) shrink_row(k, s);
    }
  }

  // r = p A^T - b, one panel.
  template <class Slabs>
  __device__ __forceinline__ void residual(Slabs& pipeline, int k, int panel) const {
    Part<T, kSamples> part;
    product<residual_kind(kPrecision)>(part, pipeline, shared_.atoms, n_);
    part.for_each_pair([&](int s, int panel_column, T first, T second) {
      const int j = panel * kPanel + panel_column;
      T r[2] = {first, second};
      for (int c = 0; c < 2; ++c) {
        if (s >= count_ || j + c >= m_) continue;
        r[c] -= net_.measurements[(first_ + s) * m_ + j + c];
        if (a_.trace.residuals != nullptr) {
          a_.trace.residuals[(k * net_.batch + first_ + s) * trace_row(m_) + j + c] = r[c];
        }
      }
      put_pair(shared_.measurements, s, j, m_, r[0], r[1]);
    });
  }

  __device__ __forceinline__ void keep(int k, std::int64_t at, T x) const {
    if (a_.iterates != nullptr) {
      a_.iterates[((k + 1) * net_.batch + at / row_n_) * n_ + at % row_n_] = x;
    }
    if (a_.trace.codes != nullptr) a_.trace.codes[k * net_.batch * row_n_ + at] = x;
  }

  // One panel of v, straight through the shrinkage.
  __device__ __forceinline__ void shrink(const Part<T, kSamples>& part, int k, int panel) const {
    part.for_each_pair([&](int s, int panel_column, T first, T second) {
      const int i = panel * kPanel + panel_column;
      if (i >= shared_.atoms.row) return;
      const Row<T> row{net_, k, first_ + s};
      const int at = shared_.atoms.at(s, i);
      Pack<T, 2> x = shared_.atoms.data.template get<2>(at);
      const T v[2] = {first, second};
      for (int c = 0; c < 2; ++c) {
        if (s >= count_ || i + c >= n_) continue;
        x.v[c] = row.next_straight(i + c, x.v[c], v[c]);
        keep(k, (first_ + s) * row_n_ + i + c, x.v[c]);
        if (a_.trace.directions != nullptr) direction(k, s)[i + c] = v[c];
      }
      shared_.atoms.data.template put<2>(at, x);
    });
  }

  __device__ __forceinline__ void store_direction(const Part<T, kSamples>& part, int k,
                                                  int panel) const {
    part.for_each_pair([&](int s, int panel_column, T first, T second) {
      const int i = panel * kPanel + panel_column;
      const T v[2] = {first, second};
      for (int c = 0; c < 2; ++c) {
        if (s >= count_ || i + c >= n_) continue;
        const T linear =
            net_.factored() ? T(0)
                            : net_.linear[k * net_.linear_layer_stride + (first_ + s) * n_ + i + c];
        direction(k, s)[i + c] = v[c] - linear;
      }
    });
  }

  __device__ __forceinline__ void shrink_row(int k, int s) const {
    Row<T> row{net_, k, first_ + s};
    const T* const now = net_.momentum != nullptr ? history(k, s) : nullptr;
    T* const next = net_.momentum != nullptr ? history(k + 1, s) : nullptr;
    const auto y = [&](std::int64_t i) -> T {
      if (now == nullptr) return shared_.atoms.data[shared_.atoms.at(s, static_cast<int>(i))];
      return extrapolated(k, now[i], next[i]);
    };
    const T* const v = direction(k, s);
    const auto put = [&](std::int64_t i, T x) {
      T following = x;
      if (now != nullptr) {
        next[i] = x;
        if (k + 1 < net_.n_layers) following = extrapolated(k + 1, x, now[i]);
      }
      put_operand(k + 1, s, static_cast<int>(i), x, following);
      keep(k, (first_ + s) * row_n_ + i, x);
    };
    forward_row(row, WarpGroup(), y, [&](std::int64_t i) { return v[i]; }, put);
    const std::int64_t at = k * net_.batch + first_ + s;
    if (lane() == 0 && a_.trace.norms != nullptr) a_.trace.norms[at] = row.norm;
    if (lane() == 0 && a_.trace.ranks != nullptr) a_.trace.ranks[at] = row.rank;
  }

  const ForwardArguments<T>& a_;
  const Network<T>& net_;
  const int n_, m_, row_n_;
  const TileShared<T> shared_;
  std::int64_t first_ = 0;  // sample
  int count_ = 0;           // samples of the tile
};

template <class T, Precision kPrecision, int kSamples>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ ForwardArguments<T> a) {
  ForwardTile<T, kPrecision, kSamples>(a).run();
}

template <class T, Precision kPrecision>
Error launch_forward(const ForwardArguments<T>& a, const Plan& plan, Stream stream) {
  const LaunchShape shape{plan.grid, kThreads, plan.shared_bytes};
  switch (plan.samples) {
    case 16:
      return launch(forward_kernel<T, kPrecision, 16>, shape, stream, a);
    case 32:
      return launch(forward_kernel<T, kPrecision, 32>, shape, stream, a);
    default:
      if constexpr (sizeof(T) == 8) {
        return "a tile of double has at most 32 samples";
      } else {
        return launch(forward_kernel<T, kPrecision, 64>, shape, stream, a);
      }
  }
}

}  // namespace fastunroll::cuda
