// SPDX-License-Identifier: Apache-2.0
// One sample's way through the shrinkage of one layer, and back. A row is the work of a group of
// threads, a warp or a block, of which each takes every size-th atom.
#pragma once

#include "cuda/prox.h"
#include "cuda/reduce.h"

namespace fastunroll::cuda {

struct WarpGroup {
  __device__ __forceinline__ int rank() const { return lane(); }
  __device__ __forceinline__ int size() const { return kWarp; }
  template <class T>
  __device__ __forceinline__ T sum(T value) const {
    return warp_sum(value);
  }
  __device__ __forceinline__ int count(int value) const { return warp_sum(value); }
};

template <class T>
__device__ __forceinline__ T at(const LayerParameter<T>& p, std::int64_t layer, std::int64_t sample,
                                std::int64_t atom) {
  return p.data[layer * p.layer_stride + sample * p.sample_stride + atom * p.atom_stride];
}

// The number that is added to v's place in u = y - step v.
template <class T>
__device__ __forceinline__ T rule_step(const Network<T>& net, std::int64_t layer, T norm) {
  const T gate = math::sigmoid(std::fma(net.rule_weight[layer], norm, net.rule_bias[layer]));
  return std::fma(net.rule_maximum - net.rule_minimum, gate, net.rule_minimum);
}

// Layer k of one sample; norm and rank are what the trace holds.
template <class T>
struct Row {
  const Network<T>& net;
  std::int64_t layer;
  std::int64_t sample;
  T norm = 0;
  T rank = std::numeric_limits<T>::quiet_NaN();  // no entry skips the shrinkage
  T rule = 0;                                    // step of the rule

  __device__ __forceinline__ T step(std::int64_t i) const {
    return net.rule_weight != nullptr ? rule : at(net.step, layer, sample, i);
  }
  __device__ __forceinline__ T threshold(std::int64_t i) const {
    return at(net.threshold, layer, sample, i);
  }
  __device__ __forceinline__ T shape() const {
    return net.prox_shape != nullptr ? net.prox_shape[layer] : T(0);
  }
  __device__ __forceinline__ T update(std::int64_t i, T y, T v) const {
    return std::fma(-step(i), v, net.skip ? y : T(0));
  }
  __device__ __forceinline__ bool kept(T u) const {
    return rank == rank && !(shrink_size(u, net.prox) < rank);
  }
  __device__ __forceinline__ T next(std::int64_t i, T y, T v) const {
    const T u = update(i, y, v);
    return prox_value(u, threshold(i), net.prox, shape(), kept(u));
  }
  // The same where no entry skips the shrinkage and it is not curved.
  __device__ __forceinline__ T next_straight(std::int64_t i, T y, T v) const {
    return straight_value(update(i, y, v), threshold(i), net.prox, false);
  }
  __device__ __forceinline__ void set_norm(T value) {
    norm = value;
    rule = rule_step(net, layer, norm);
  }
};

template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

template <class T>
__device__ __forceinline__ Bits<T> bits_of(T a) {
  Bits<T> bits;
  memcpy(&bits, &a, sizeof(a));
  return bits;
}

// The magnitude from which on the layer's count of entries skip the shrinkage: that of the
// count-th largest among those above their threshold; NaN where none is. The bits of magnitudes
// are ordered as the magnitudes are, and the largest number that enough entries reach is found bit
// by bit.
template <class T, class Group, class Y, class V>
__device__ T select_rank(const Row<T>& row, Group group, Y y, V v) {
  const auto reach = [&](Bits<T> limit) {
    int count = 0;
    for (std::int64_t i = group.rank(); i < row.net.n_atoms; i += group.size()) {
      const T size = shrink_size(row.update(i, y(i), v(i)), row.net.prox);
      if (!(size <= row.threshold(i)) && bits_of(size) >= limit) ++count;
    }
    return group.count(count);
  };
  const std::int64_t candidates = reach(0);
  const std::int64_t counted = row.net.bypass[row.layer];
  const std::int64_t wanted = counted < candidates ? counted : candidates;
  if (wanted == 0) return std::numeric_limits<T>::quiet_NaN();
  Bits<T> rank = 0;
  for (int bit = static_cast<int>(sizeof(T)) * 8 - 2; bit >= 0; --bit) {
    const Bits<T> limit = rank | (Bits<T>(1) << bit);
    if (reach(limit) >= wanted) rank = limit;
  }
  T value;
  memcpy(&value, &rank, sizeof(value));
  return value;
}

// Puts x_{k+1} from y and v; the row gets its norm and rank on the way.
template <class T, class Group, class Y, class V, class Put>
__device__ __forceinline__ void forward_row(Row<T>& row, Group group, Y y, V v, Put put) {
  const std::int64_t n = row.net.n_atoms;
  if (row.net.rule_weight != nullptr) {
    T squares = 0;
    for (std::int64_t i = group.rank(); i < n; i += group.size()) {
      squares = std::fma(v(i), v(i), squares);
    }
    row.set_norm(std::sqrt(group.sum(squares)));
  }
  if (row.net.bypass != nullptr) row.rank = select_rank(row, group, y, v);
  for (std::int64_t i = group.rank(); i < n; i += group.size()) put(i, row.next(i, y(i), v(i)));
}

// Sums over one sample's atoms: derivatives with respect to the layer's parameters.
template <class T>
struct RowSums {
  T step = 0;
  T threshold = 0;
  T shape = 0;
  T rule_weight = 0;
  T rule_bias = 0;
};

// From the gradient of x_{k+1}: put(i, gradient of v, gradient of u, step's term, threshold's term)
// for every atom. The row has its norm and rank.
template <class T, class Group, class Y, class V, class G, class Put>
__device__ __forceinline__ RowSums<T> backward_row(const Row<T>& row, Group group, Y y, V v, G grad,
                                                   Put put) {
  const Network<T>& net = row.net;
  const auto gradient_of_u = [&](std::int64_t i, math::Slopes<T>* slopes) {
    const T u = row.update(i, y(i), v(i));
    *slopes = prox_slopes(u, row.threshold(i), net.prox, row.shape(), row.kept(u));
    return slopes->size == T(0) ? T(0) : grad(i) * slopes->size;
  };
  RowSums<T> sums;
  T factor = 0;
  math::Slopes<T> slopes;
  if (net.rule_weight != nullptr) {
    for (std::int64_t i = group.rank(); i < net.n_atoms; i += group.size()) {
      sums.step = std::fma(-gradient_of_u(i, &slopes), v(i), sums.step);
    }
    sums.step = group.sum(sums.step);
    const T weight = net.rule_weight[row.layer];
    const T gate = math::sigmoid(std::fma(weight, row.norm, net.rule_bias[row.layer]));
    sums.rule_bias = sums.step * (net.rule_maximum - net.rule_minimum) * gate * (T(1) - gate);
    sums.rule_weight = sums.rule_bias * row.norm;
    // The norm's subgradient at v = 0 is 0.
    factor = row.norm == T(0) ? T(0) : sums.rule_bias * weight / row.norm;
  }
  T step_sum = 0;
  for (std::int64_t i = group.rank(); i < net.n_atoms; i += group.size()) {
    const T grad_u = gradient_of_u(i, &slopes);
    const T v_i = v(i);
    const T step_term = -grad_u * v_i;
    const T threshold_term = slopes.threshold == T(0) ? T(0) : grad(i) * slopes.threshold;
    step_sum += step_term;
    sums.threshold += threshold_term;
    if (slopes.shape != T(0)) sums.shape = std::fma(grad(i), slopes.shape, sums.shape);
    put(i, std::fma(factor, v_i, -row.step(i) * grad_u), grad_u, step_term, threshold_term);
  }
  if (net.rule_weight == nullptr) sums.step = group.sum(step_sum);
  sums.threshold = group.sum(sums.threshold);
  if (net.prox_shape != nullptr) sums.shape = group.sum(sums.shape);
  return sums;
}

}  // namespace fastunroll::cuda
