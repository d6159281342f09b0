// SPDX-License-Identifier: Apache-2.0
// The backward pass over tiles: a block takes kSamples samples back through all layers, from the
// trace of the forward pass. Shared memory holds the operands of the two products, the gradients
// of v and of the residual; the gradient of x_k waits in device memory, which L2 holds. What the
// sums over the samples need, the gradients of v (in the place of v) and of the residual, goes to
// device memory.
#pragma once

#include "cuda/backward.h"
#include "cuda/rows.h"
#include "cuda/tile.h"

namespace fastunroll::cuda {

template <class T, int kSamples>
class BackwardTile {
 public:
  __device__ __forceinline__ BackwardTile(const BackwardTileArguments<T>& a)
      : a_(a),
        net_(a.net),
        n_(static_cast<int>(a.net.n_atoms)),
        m_(static_cast<int>(a.net.n_measurements)),
        row_n_(static_cast<int>(trace_row(n_))),
        last_(static_cast<int>(a.net.n_layers) - 1),
        shared_(TileShared<T>::make(kSamples, a.net, false)) {}

  __device__ __forceinline__ void run() {
    const std::int64_t tiles = (net_.batch + kSamples - 1) / kSamples;
    const auto mine = static_cast<int>((tiles - block_index() + block_count() - 1) / block_count());
    const auto matrices = [this](int i) {
      if (!net_.factored()) return i == 0 ? Streamed::of(net_.gram_t, Kind::plain) : Streamed{};
      return Streamed::of(i == 0 ? net_.weight_t : net_.dictionary, Kind::plain);
    };
    Pipeline pipeline(shared_.stages, matrices, last_, last_ + 1, -1, mine);
    for (std::int64_t tile = block_index(); tile < tiles; tile += block_count()) {
      first_ = tile * kSamples;
      count_ = static_cast<int>(net_.batch - first_ < kSamples ? net_.batch - first_ : kSamples);
      sync_block();
      begin();
      for (int k = last_; k >= 0; --k) layer(pipeline, k);
      sync_block();
      end();
    }
    wait_copies<0>();
  }

 private:
  // Gradient of x: of the layer's output, then in parts of y; or what momentum adds to x_{k-1}'s.
  __device__ __forceinline__ T* carry(int slot, int s) const {
    const std::int64_t slots = net_.momentum != nullptr ? 2 : 1;
    return a_.carry + ((block_index() * slots + slot) * kSamples + s) * row_n_;
  }
  __device__ __forceinline__ std::int64_t trace_at(int k, int s) const {
    return k * net_.batch + first_ + s;
  }
  // x_k, for k >= -1.
  __device__ __forceinline__ T code(int k, int s, std::int64_t i) const {
    if (k > 0) return a_.trace.codes[trace_at(k - 1, s) * row_n_ + i];
    const T* const given = k < 0 && net_.previous != nullptr ? net_.previous : net_.initial;
    return given != nullptr ? given[(first_ + s) * n_ + i] : T(0);
  }
  // y of layer k.
  __device__ __forceinline__ T point(int k, int s, std::int64_t i) const {
    const T x = code(k, s, i);
    return net_.momentum != nullptr ? std::fma(net_.momentum[k], x - code(k - 1, s, i), x) : x;
  }
  __device__ __forceinline__ T outer_gradient(int k, int s, std::int64_t i) const {
    if (a_.grad_iterates == nullptr) return T(0);
    return a_.grad_iterates[k * a_.iterates_stride + (first_ + s) * n_ + i];
  }

  // body(sample of the tile, atom), a warp per sample.
  template <class Body>
  __device__ __forceinline__ void for_each_atom(Body body) const {
    for (int s = warp(); s < count_; s += kWarps) {
      for (std::int64_t i = lane(); i < n_; i += kWarp) body(s, i);
    }
  }

  __device__ __forceinline__ void begin() const {
    for_each_atom([&](int s, std::int64_t i) {
      carry(0, s)[i] = a_.grad_codes != nullptr ? a_.grad_codes[(first_ + s) * n_ + i] : T(0);
      if (net_.momentum != nullptr) carry(1, s)[i] = T(0);
    });
  }

  __device__ __forceinline__ void end() const {
    if (a_.initial == nullptr) return;
    for_each_atom([&](int s, std::int64_t i) {
      a_.initial[(first_ + s) * n_ + i] = carry(0, s)[i] + outer_gradient(0, s, i);
    });
  }

  template <class Slabs>
  __device__ __forceinline__ void layer(Slabs& pipeline, int k) const {
    sync_block();
    for (int s = warp(); s < kSamples; s += kWarps) {
      if (s < count_) through_prox(k, s);
      const int first_zero = s < count_ ? n_ : 0;
      for (int i = first_zero + lane(); i < shared_.atoms.row; i += kWarp) {
        shared_.atoms.data[shared_.atoms.at(s, i)] = T(0);
      }
    }
    const int of_residual = net_.factored() ? panels(m_) : 0;
    for (int panel = -of_residual; panel < panels(n_); ++panel) {
      const bool by_dictionary = net_.factored() && panel >= 0;
      Part<T, kSamples> part;
      product(part, pipeline, by_dictionary ? shared_.measurements : shared_.atoms,
              by_dictionary ? m_ : n_, kind_of(net_));
      if (panel < 0) {
        put_residual(part, k, (panel + of_residual) * kPanel);
      } else {
        add_to_carry(part, panel * kPanel);
      }
    }
    if (net_.momentum == nullptr) return;
    sync_block();
    for (int s = warp(); s < count_; s += kWarps) through_momentum(k, s);
  }

  // From the gradient of x_{k+1} to those of v and of y by way of u.
  __device__ __forceinline__ void through_prox(int k, int s) const {
    Row<T> row{net_, k, first_ + s};
    if (a_.trace.norms != nullptr) row.set_norm(a_.trace.norms[trace_at(k, s)]);
    if (a_.trace.ranks != nullptr) row.rank = a_.trace.ranks[trace_at(k, s)];
    T* const direction = a_.trace.directions + trace_at(k, s) * row_n_;
    T* const gradient = carry(0, s);
    const std::int64_t at = (first_ + s) * n_;
    const auto put = [&](std::int64_t i, T grad_v, T grad_u, T step_term, T threshold_term) {
      direction[i] = grad_v;
      gradient[i] = net_.skip ? grad_u : T(0);
      shared_.atoms.data[shared_.atoms.at(s, static_cast<int>(i))] = grad_v;
      if (a_.step.data != nullptr) a_.step.data[k * a_.step.layer_stride + at + i] = step_term;
      if (a_.threshold.data != nullptr) {
        a_.threshold.data[k * a_.threshold.layer_stride + at + i] = threshold_term;
      }
      if (a_.linear == nullptr) return;
      const bool shared = net_.linear_layer_stride == 0;
      T* const linear = a_.linear + k * net_.linear_layer_stride + at + i;
      *linear = (shared && k != last_ ? *linear : T(0)) - grad_v;
    };
    const RowSums<T> sums = backward_row(
        row, WarpGroup(), [&](std::int64_t i) { return point(k, s, i); },
        [&](std::int64_t i) { return direction[i]; },
        [&](std::int64_t i) { return gradient[i] + outer_gradient(k + 1, s, i); }, put);
    put_sum(a_.sums.step, k, s, sums.step);
    put_sum(a_.sums.threshold, k, s, sums.threshold);
    put_sum(a_.sums.shape, k, s, sums.shape);
    put_sum(a_.sums.rule_weight, k, s, sums.rule_weight);
    put_sum(a_.sums.rule_bias, k, s, sums.rule_bias);
  }

  __device__ __forceinline__ void put_sum(double* sums, int k, int s, T value) const {
    if (sums != nullptr && lane() == 0) {
      sums[k * a_.sums.layer_stride + first_ + s] = static_cast<double>(value);
    }
  }

  // The gradient of r from that of v, the panel from column `start` on.
  __device__ __forceinline__ void put_residual(Part<T, kSamples>& part, int k, int start) const {
    part.for_each_pair([&](int s, int column, Pack<T, 2> r) {
      const int j = start + column;
      put_pair(shared_.measurements, s, j, m_, r);
      for (int c = 0; c < 2; ++c) {
        if (s >= count_ || j + c >= m_) continue;
        a_.residual_gradients[trace_at(k, s) * trace_row(m_) + j + c] = r.v[c];
        if (a_.measurements == nullptr) continue;
        T* const b = a_.measurements + (first_ + s) * m_ + j + c;
        *b = (k != last_ ? *b : T(0)) - r.v[c];
      }
    });
  }

  // What reaches x_k by way of the gradient step, one panel.
  __device__ __forceinline__ void add_to_carry(Part<T, kSamples>& part, int start) const {
    const int slot = net_.momentum != nullptr && net_.heavy_ball ? 1 : 0;
    part.for_each_pair([&](int s, int column, Pack<T, 2> gradient) {
      const int i = start + column;
      if (s < count_ && i < n_) carry(slot, s)[i] += gradient.v[0];
      if (s < count_ && i + 1 < n_) carry(slot, s)[i + 1] += gradient.v[1];
    });
  }

  // y = x_k + beta (x_k - x_{k-1}): from the gradient of y to that of x_k and a part of x_{k-1}'s.
  __device__ __forceinline__ void through_momentum(int k, int s) const {
    const T beta = net_.momentum[k];
    // x_{-1} is x_0 itself where none was given, so the two parts cancel there.
    const bool same = k == 0 && net_.previous == nullptr;
    T* const gradient = carry(0, s);
    T* const before = carry(1, s);
    T dot = 0;
    for (std::int64_t i = lane(); i < n_; i += kWarp) {
      const T y = gradient[i];
      dot = std::fma(y, code(k, s, i) - code(k - 1, s, i), dot);
      gradient[i] = before[i] + (same ? y : std::fma(beta, y, y));
      before[i] = -beta * y;
    }
    put_sum(a_.sums.momentum, k, s, warp_sum(dot));
  }

  const BackwardTileArguments<T>& a_;
  const Network<T>& net_;
  const int n_, m_, row_n_;
  const int last_;  // layer
  const TileShared<T> shared_;
  std::int64_t first_ = 0;
  int count_ = 0;
};

template <class T, int kSamples>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const __grid_constant__ BackwardTileArguments<T> a) {
  BackwardTile<T, kSamples>(a).run();
}

template <class T, int kSamples>
Error launch_backward_tiles(const BackwardTileArguments<T>& a, const Plan& plan, Stream stream) {
  return launch(backward_kernel<T, kSamples>, {plan.grid, kThreads, plan.shared_bytes}, stream, a);
}

}  // namespace fastunroll::cuda
