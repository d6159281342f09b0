// SPDX-License-Identifier: Apache-2.0
// One layer around products that are made elsewhere: a warp takes a sample.
#include "cuda/parameters.h"
#include "cuda/product.h"
#include "cuda/rows.h"

namespace fastunroll::cuda {
namespace {

template <class T>
struct LayerArguments {
  Network<T> net;
  std::int64_t layer;
  LayerArrays<T> arrays;
  LayerGradients<T> gradients;
  Terms<T> step, threshold;
  SampleSums sums;
};

template <class T>
__device__ __forceinline__ T point(const LayerArguments<T>& a, std::int64_t at) {
  if (a.arrays.codes == nullptr) return T(0);
  const T x = a.arrays.codes[at];
  if (a.net.momentum == nullptr || a.arrays.previous == nullptr) return x;
  return std::fma(a.net.momentum[a.layer], x - a.arrays.previous[at], x);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) extrapolate_kernel(const LayerArguments<T> a, T* y) {
  const std::int64_t at = static_cast<std::int64_t>(block_index()) * kThreads + thread_index();
  if (at < a.net.batch * a.net.n_atoms) y[at] = point(a, at);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    layer_forward_kernel(const __grid_constant__ LayerArguments<T> a) {
  const std::int64_t sample = static_cast<std::int64_t>(block_index()) * kWarps + warp();
  if (sample >= a.net.batch) return;
  const std::int64_t at = sample * a.net.n_atoms;
  Row<T> row{a.net, a.layer, sample};
  forward_row(
      row, WarpGroup(), [&](std::int64_t i) { return point(a, at + i); },
      [&](std::int64_t i) { return a.arrays.direction[at + i]; },
      [&](std::int64_t i, T x) { a.arrays.next[at + i] = x; });
  if (lane() != 0) return;
  if (a.arrays.norm != nullptr) a.arrays.norm[sample] = row.norm;
  if (a.arrays.rank != nullptr) a.arrays.rank[sample] = row.rank;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    layer_backward_kernel(const __grid_constant__ LayerArguments<T> a) {
  const std::int64_t sample = static_cast<std::int64_t>(block_index()) * kWarps + warp();
  if (sample >= a.net.batch) return;
  const std::int64_t at = sample * a.net.n_atoms;
  Row<T> row{a.net, a.layer, sample};
  if (a.net.rule_weight != nullptr) row.set_norm(a.arrays.norm[sample]);
  if (a.net.bypass != nullptr) row.rank = a.arrays.rank[sample];
  const RowSums<T> sums = backward_row(
      row, WarpGroup(), [&](std::int64_t i) { return point(a, at + i); },
      [&](std::int64_t i) { return a.arrays.direction[at + i]; },
      [&](std::int64_t i) { return a.gradients.next[at + i]; },
      [&](std::int64_t i, T grad_v, T grad_u, T step_term, T threshold_term) {
        a.gradients.direction[at + i] = grad_v;
        if (a.gradients.point != nullptr) {
          a.gradients.point[at + i] = a.net.skip ? grad_u : T(0);
        }
        if (a.step.data != nullptr) a.step.data[at + i] = step_term;
        if (a.threshold.data != nullptr) a.threshold.data[at + i] = threshold_term;
      });
  const auto put = [&](double* to, T value) {
    if (to != nullptr && lane() == 0) to[sample] = static_cast<double>(value);
  };
  put(a.sums.step, sums.step);
  put(a.sums.threshold, sums.threshold);
  put(a.sums.shape, sums.shape);
  put(a.sums.rule_weight, sums.rule_weight);
  put(a.sums.rule_bias, sums.rule_bias);
}

template <class T>
std::int64_t row_blocks(const Network<T>& net) {
  return (net.batch + kWarps - 1) / kWarps;
}

// The part of a gradient that is layer k's.
template <class T>
T* layer_part(T* out, const LayerParameter<T>& p, const Network<T>& net, std::int64_t layer) {
  if (out == nullptr) return nullptr;
  return out +
         layer * (p.sample_stride != 0 ? net.batch : 1) * (p.atom_stride != 0 ? net.n_atoms : 1);
}

template <class T>
struct Pieces {
  Workspace workspace;
  ParameterGradient<T> step, threshold;
  SampleSums sums;

  Pieces(const Network<T>& net, std::int64_t layer, const LayerGradients<T>& gradients, void* base)
      : workspace(base),
        step(net.step, layer_part(gradients.step, net.step, net, layer), 1, net.batch, net.batch,
             net.n_atoms, workspace),
        threshold(net.threshold, layer_part(gradients.threshold, net.threshold, net, layer), 1,
                  net.batch, net.batch, net.n_atoms, workspace) {
    const auto sum = [&](const T* out) {
      return out ? workspace.take<double>(net.batch) : nullptr;
    };
    sums = {step.sums,
            threshold.sums,
            sum(gradients.prox_shape),
            sum(gradients.rule_weight),
            sum(gradients.rule_bias),
            nullptr,
            net.batch};
  }
};

}  // namespace

template <class T>
Error extrapolate(const Network<T>& net, std::int64_t layer, const T* codes, const T* previous,
                  T* y, Stream stream) {
  LayerArguments<T> a{};
  a.net = net;
  a.layer = layer;
  a.arrays.codes = codes;
  a.arrays.previous = previous;
  const std::int64_t blocks = (net.batch * net.n_atoms + kThreads - 1) / kThreads;
  return launch(extrapolate_kernel<T>, {blocks, kThreads}, stream, a, y);
}

template <class T>
Error layer_forward(const Network<T>& net, std::int64_t layer, const LayerArrays<T>& arrays,
                    Stream stream) {
  LayerArguments<T> a{};
  a.net = net;
  a.layer = layer;
  a.arrays = arrays;
  return launch(layer_forward_kernel<T>, {row_blocks(net), kThreads}, stream, a);
}

template <class T>
std::size_t layer_backward_workspace(const Network<T>& net) {
  // As if every gradient were asked for; the pointers are not followed.
  T any = 0;
  LayerGradients<T> all;
  for (T** p : {&all.step, &all.threshold, &all.rule_weight, &all.rule_bias, &all.prox_shape}) {
    *p = &any;
  }
  return Pieces<T>(net, 0, all, nullptr).workspace.bytes();
}

template <class T>
Error layer_backward(const Network<T>& net, std::int64_t layer, const LayerArrays<T>& arrays,
                     const LayerGradients<T>& gradients, void* workspace, Stream stream) {
  const Pieces<T> pieces(net, layer, gradients, workspace);
  const LayerArguments<T> a{net,
                            layer,
                            arrays,
                            gradients,
                            pieces.step.of_chunk(0, net.batch, net.batch, net.n_atoms),
                            pieces.threshold.of_chunk(0, net.batch, net.batch, net.n_atoms),
                            pieces.sums};
  Error error = launch(layer_backward_kernel<T>, {row_blocks(net), kThreads}, stream, a);
  for (const auto* p : {&pieces.step, &pieces.threshold}) {
    if (error == nullptr) error = p->add_chunk(1, 0, net.batch, net.n_atoms, stream);
    if (error == nullptr) error = p->finish(1, net.batch, stream);
  }
  const std::pair<const double*, T*> others[] = {{pieces.sums.shape, gradients.prox_shape},
                                                 {pieces.sums.rule_weight, gradients.rule_weight},
                                                 {pieces.sums.rule_bias, gradients.rule_bias}};
  for (const auto& [sums, out] : others) {
    if (error != nullptr || out == nullptr) continue;
    error = ParameterGradient<T>::sum_samples(sums, 1, net.batch, false, out + layer, stream);
  }
  return error;
}

#define INSTANTIATE(T)                                                                             \
  template Error extrapolate<T>(const Network<T>&, std::int64_t, const T*, const T*, T*, Stream);  \
  template Error layer_forward<T>(const Network<T>&, std::int64_t, const LayerArrays<T>&, Stream); \
  template std::size_t layer_backward_workspace<T>(const Network<T>&);                             \
  template Error layer_backward<T>(const Network<T>&, std::int64_t, const LayerArrays<T>&,         \
                                   const LayerGradients<T>&, void*, Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastunroll::cuda
