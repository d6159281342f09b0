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

template <class T, int kSamples>
class ForwardTile {
 public:
  __device__ __forceinline__ ForwardTile(const ForwardArguments<T>& a)
      : a_(a),
        net_(a.net),
        n_(static_cast<int>(a.net.n_atoms)),
        m_(static_cast<int>(a.net.n_measurements)),
        row_n_(static_cast<int>(trace_row(n_))),
        shared_(TileShared<T>::make(kSamples, a.net, mixed(a.net))) {}

  __device__ __forceinline__ void run() {
    const std::int64_t tiles = (net_.batch + kSamples - 1) / kSamples;
    const auto mine = static_cast<int>((tiles - block_index() + block_count() - 1) / block_count());
    const auto matrices = [this](int i) {
      const Kind last = direction_kind(net_);
      if (!net_.factored()) return i == 0 ? Streamed::of(net_.gram, last) : Streamed{};
      return i == 0 ? Streamed::of(net_.dictionary_t, residual_kind(net_))
                    : Streamed::of(net_.weight, last);
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
    const int of_residual = net_.factored() ? panels(m_) : 0;
    for (int panel = -of_residual; panel < panels(n_); ++panel) {
      const bool by_weight = net_.factored() && panel >= 0;
      Part<T, kSamples> part;
      product(part, pipeline, by_weight ? shared_.measurements : shared_.atoms, by_weight ? m_ : n_,
              panel < 0 ? residual_kind(net_) : direction_kind(net_));
      if (panel < 0) {
        put_residual(part, k, (panel + of_residual) * kPanel);
      } else if (deferred(net_)) {
        put_direction(part, k, panel * kPanel);
      } else {
        shrink(part, k, panel * kPanel);
      }
    }
    if (!deferred(net_)) return;
    sync_block();
    for (int s = warp(); s < kSamples; s += kWarps) {
      if (s < count_) shrink_row(k, s);
    }
  }

  // r = p A^T - b, the panel from column `start` on.
  __device__ __forceinline__ void put_residual(Part<T, kSamples>& part, int k, int start) const {
    part.for_each_pair([&](int s, int column, Pack<T, 2> r) {
      const int j = start + column;
      const std::int64_t at = (k * net_.batch + first_ + s) * trace_row(m_) + j;
      for (int c = 0; c < 2; ++c) {
        if (s >= count_ || j + c >= m_) continue;
        r.v[c] -= net_.measurements[(first_ + s) * m_ + j + c];
        if (a_.trace.residuals != nullptr) a_.trace.residuals[at + c] = r.v[c];
      }
      put_pair(shared_.measurements, s, j, m_, r);
    });
  }

  // x_{k+1}, where it is asked for.
  __device__ __forceinline__ void keep(int k, int s, std::int64_t i, T x) const {
    const std::int64_t row = k * net_.batch + first_ + s;
    if (a_.iterates != nullptr) a_.iterates[(row + net_.batch) * n_ + i] = x;
    if (a_.trace.codes != nullptr) a_.trace.codes[row * row_n_ + i] = x;
  }

  // One panel of v, straight through the shrinkage.
  __device__ __forceinline__ void shrink(Part<T, kSamples>& part, int k, int start) const {
    part.for_each_pair([&](int s, int column, Pack<T, 2> v) {
      const int i = start + column;
      if (i >= shared_.atoms.row) return;
      const Row<T> row{net_, k, first_ + s};
      const int at = shared_.atoms.at(s, i);
      Pack<T, 2> x = shared_.atoms.data.template get<2>(at);
      for (int c = 0; c < 2; ++c) {
        if (s >= count_ || i + c >= n_) continue;
        x.v[c] = row.next_straight(i + c, x.v[c], v.v[c]);
        keep(k, s, i + c, x.v[c]);
        if (a_.trace.directions != nullptr) direction(k, s)[i + c] = v.v[c];
      }
      shared_.atoms.data.template put<2>(at, x);
    });
  }

  __device__ __forceinline__ void put_direction(Part<T, kSamples>& part, int k, int start) const {
    part.for_each_pair([&](int s, int column, Pack<T, 2> v) {
      const int i = start + column;
      const std::int64_t at = k * net_.linear_layer_stride + (first_ + s) * n_ + i;
      for (int c = 0; c < 2; ++c) {
        if (s >= count_ || i + c >= n_) continue;
        direction(k, s)[i + c] = v.v[c] - (net_.factored() ? T(0) : net_.linear[at + c]);
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
      keep(k, s, i, x);
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

template <class T, int kSamples>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ ForwardArguments<T> a) {
  ForwardTile<T, kSamples>(a).run();
}

template <class T, int kSamples>
Error launch_forward_tiles(const ForwardArguments<T>& a, const Plan& plan, Stream stream) {
  return launch(forward_kernel<T, kSamples>, {plan.grid, kThreads, plan.shared_bytes}, stream, a);
}

}  // namespace fastunroll::cuda
