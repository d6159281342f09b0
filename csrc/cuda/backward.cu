// SPDX-License-Identifier: Apache-2.0
// The backward pass: chunk by chunk the forward pass again for its trace, the way back through the
// layers, and the sums over the samples.
#include <algorithm>

#include "cuda/backward.h"
#include "cuda/parameters.h"
#include "cuda/tile.h"

namespace fastunroll::cuda {
namespace {

// The gradient of matrices (left, right), as partial sums.
template <class T>
struct MatrixGradient {
  T* out = nullptr;
  std::int64_t layers = 0, left = 0, right = 0, splits = 0;
  T* partials = nullptr;

  MatrixGradient(T* out_, std::int64_t layers_, std::int64_t left_, std::int64_t right_,
                 Workspace& workspace)
      : out(out_), layers(layers_), left(left_), right(right_) {
    if (out == nullptr) return;
    splits = outer_splits(left, right, layers);
    partials = workspace.take<T>(size());
  }
  std::int64_t size() const { return layers * splits * left * right; }
  Error clear(Stream stream) const {
    const auto bytes = static_cast<std::size_t>(size()) * sizeof(T);
    return out == nullptr ? nullptr : clear_memory(partials, bytes, stream);
  }
  // Adds rows of the network's layers [first_layer, first_layer + n_layers).
  Error add(const T* left_rows, std::int64_t left_row, const T* right_rows,
            std::int64_t first_layer, std::int64_t n_layers, std::int64_t rows, Kind kind,
            Stream stream) const {
    if (out == nullptr || n_layers == 0) return nullptr;
    const bool per_layer = layers > 1;
    T* const target = partials + (per_layer ? first_layer * splits * left * right : 0);
    return add_outer_products<T>(
        {left_rows, left_row, left, right_rows, trace_row(right), right,
         per_layer ? rows : rows * n_layers, per_layer ? n_layers : 1, target},
        kind, splits, stream);
  }
  Error finish(Stream stream) const {
    if (out == nullptr) return nullptr;
    return sum_columns(partials, layers, splits, left * right, out, false, stream);
  }
};

// The pieces of the workspace for chunks of `chunk` samples.
template <class T>
struct Pieces {
  Workspace workspace;
  Trace<T> trace;
  T* carry;
  T* history = nullptr;
  T* residual_gradients = nullptr;
  SampleSums sums;
  ParameterGradient<T> step, threshold;
  MatrixGradient<T> gram, dictionary, weight;

  Pieces(const Network<T>& net, const BackwardArguments<T>& args, const Plan& plan,
         std::int64_t chunk, void* base)
      : workspace(base),
        step(net.step, args.step, net.n_layers, net.batch, chunk, net.n_atoms, workspace),
        threshold(net.threshold, args.threshold, net.n_layers, net.batch, chunk, net.n_atoms,
                  workspace),
        gram(args.gram, args.n_grams, net.n_atoms, net.n_atoms, workspace),
        dictionary(args.dictionary, 1, net.n_atoms, net.n_measurements, workspace),
        weight(args.n_weights == 0 ? nullptr : args.weight, args.n_weights, net.n_atoms,
               net.n_measurements, workspace) {
    const std::int64_t n = trace_row(net.n_atoms), m = trace_row(net.n_measurements);
    const std::int64_t cells = net.n_layers * net.batch;
    const std::int64_t tile_rows = static_cast<std::int64_t>(plan.grid) * plan.samples * n;
    const auto sum = [&](const T* out) { return out ? workspace.take<double>(cells) : nullptr; };
    sums = {step.sums,
            threshold.sums,
            sum(args.prox_shape),
            sum(args.rule_weight),
            sum(args.rule_bias),
            sum(args.momentum),
            net.batch};
    carry = workspace.take<T>((net.momentum != nullptr ? 2 : 1) * tile_rows);
    const std::int64_t rows = net.n_layers * chunk;
    if (net.factored()) residual_gradients = workspace.take<T>(rows * m);
    if (net.momentum != nullptr) history = workspace.take<T>(3 * tile_rows);
    trace.codes = workspace.take<T>(rows * n);
    if (net.momentum != nullptr && !net.heavy_ball) trace.points = workspace.take<T>(rows * n);
    trace.directions = workspace.take<T>(rows * n);
    if (net.factored()) trace.residuals = workspace.take<T>(rows * m);
    if (net.rule_weight != nullptr) trace.norms = workspace.take<T>(rows);
    if (net.bypass != nullptr) trace.ranks = workspace.take<T>(rows);
  }
};

// The same recursion for samples [first, first + count).
template <class T>
Network<T> samples_of(Network<T> net, std::int64_t first, std::int64_t count) {
  const auto move = [first](const T*& rows, std::int64_t row) {
    if (rows != nullptr) rows += first * row;
  };
  move(net.linear, net.n_atoms);
  move(net.measurements, net.n_measurements);
  move(net.initial, net.n_atoms);
  move(net.previous, net.n_atoms);
  move(net.step.data, net.step.sample_stride);
  move(net.threshold.data, net.threshold.sample_stride);
  net.batch = count;
  return net;
}

template <class T>
T* offset(T* data, std::int64_t elements) {
  return data == nullptr ? nullptr : data + elements;
}

SampleSums samples_of(SampleSums sums, std::int64_t first) {
  for (double** p : {&sums.step, &sums.threshold, &sums.shape, &sums.rule_weight, &sums.rule_bias,
                     &sums.momentum}) {
    *p = offset(*p, first);
  }
  return sums;
}

template <class T>
Error launch_backward(const BackwardTileArguments<T>& a, const Plan& plan, Stream stream) {
  return with_tiles_of<T>(plan, [&](auto samples) {
    return launch_backward_tiles<T, decltype(samples)::value>(a, plan, stream);
  });
}

// Runs the steps up to the first that fails.
class Steps {
 public:
  template <class Step>
  Steps& operator()(Step step) {
    if (error_ == nullptr) error_ = step();
    return *this;
  }
  Error error() const { return error_; }

 private:
  Error error_ = nullptr;
};

// Sums over the samples of one chunk: dG = p^T dv, or dA^T = p^T dr and dW^T = dv^T r.
template <class T>
void add_matrices(Steps& steps, const BackwardTileArguments<T>& a, const Pieces<T>& pieces,
                  bool tied, Stream stream) {
  const Network<T>& net = a.net;
  const std::int64_t n = trace_row(net.n_atoms), m = trace_row(net.n_measurements);
  const std::int64_t rows = net.batch, layers = net.n_layers;
  const MatrixGradient<T>& points = net.factored() ? pieces.dictionary : pieces.gram;
  const T* const right = net.factored() ? a.residual_gradients : a.trace.directions;
  const std::int64_t right_row = net.factored() ? m : n;
  const auto add = [&](const T* left, std::int64_t left_row, std::int64_t layer,
                       std::int64_t count) {
    steps([&] {
      return points.add(left, left_row, right + layer * rows * right_row, layer, count, rows,
                        kind_of(net), stream);
    });
  };
  if (a.trace.points != nullptr) {
    add(a.trace.points, n, 0, layers);
  } else {
    if (net.initial != nullptr) add(net.initial, net.n_atoms, 0, 1);
    add(a.trace.codes, n, 1, layers - 1);
  }
  if (!net.factored()) return;
  const MatrixGradient<T>& weight = tied ? pieces.dictionary : pieces.weight;
  steps([&] {
    return weight.add(a.trace.directions, n, a.trace.residuals, 0, layers, rows, kind_of(net),
                      stream);
  });
}

}  // namespace

template <class T>
std::size_t backward_workspace(const Network<T>& net, const BackwardArguments<T>& args,
                               const Plan& plan, std::int64_t chunk) {
  return Pieces<T>(net, args, plan, chunk, nullptr).workspace.bytes();
}

template <class T>
Error backward(const Network<T>& net, const BackwardArguments<T>& args, const Plan& plan,
               void* workspace, Stream stream) {
  if (plan.path != Path::tile) return "the sizes do not fit a kernel: compose the layers";
  const std::int64_t n = net.n_atoms, m = net.n_measurements, layers = net.n_layers;
  const Pieces<T> pieces(net, args, plan, plan.chunk, workspace);
  Steps steps;
  for (const auto* matrix : {&pieces.gram, &pieces.dictionary, &pieces.weight}) {
    steps([&] { return matrix->clear(stream); });
  }
  for (std::int64_t first = 0; first < net.batch; first += plan.chunk) {
    const std::int64_t count = std::min(plan.chunk, net.batch - first);
    BackwardTileArguments<T> a{};
    a.net = samples_of(net, first, count);
    a.trace = pieces.trace;
    a.grad_codes = offset(args.grad_codes, first * n);
    a.grad_iterates = offset(args.grad_iterates, first * n);
    a.iterates_stride = net.batch * n;
    a.carry = pieces.carry;
    a.residual_gradients = pieces.residual_gradients;
    a.step = pieces.step.of_chunk(first, count, net.batch, n);
    a.threshold = pieces.threshold.of_chunk(first, count, net.batch, n);
    a.sums = samples_of(pieces.sums, first);
    a.measurements = offset(args.measurements, first * m);
    a.linear = offset(args.linear, first * n);
    a.initial = offset(args.initial, first * n);
    const ForwardArguments<T> again{a.net, nullptr, nullptr, a.trace, pieces.history};
    steps([&] { return launch_forward(again, plan, stream); });
    steps([&] { return launch_backward(a, plan, stream); });
    add_matrices(steps, a, pieces, args.n_weights == 0, stream);
    for (const auto* p : {&pieces.step, &pieces.threshold}) {
      steps([&] { return p->add_chunk(layers, first, count, n, stream); });
    }
  }
  for (const auto* matrix : {&pieces.gram, &pieces.dictionary, &pieces.weight}) {
    steps([&] { return matrix->finish(stream); });
  }
  for (const auto* p : {&pieces.step, &pieces.threshold}) {
    steps([&] { return p->finish(layers, net.batch, stream); });
  }
  const std::pair<const double*, T*> others[] = {{pieces.sums.shape, args.prox_shape},
                                                 {pieces.sums.rule_weight, args.rule_weight},
                                                 {pieces.sums.rule_bias, args.rule_bias},
                                                 {pieces.sums.momentum, args.momentum}};
  for (const auto& [sums, out] : others) {
    steps([&, from = sums, to = out] {
      return ParameterGradient<T>::sum_samples(from, layers, net.batch, false, to, stream);
    });
  }
  return steps.error();
}

#define INSTANTIATE(T)                                                                           \
  template std::size_t backward_workspace<T>(const Network<T>&, const BackwardArguments<T>&,     \
                                             const Plan&, std::int64_t);                         \
  template Error backward<T>(const Network<T>&, const BackwardArguments<T>&, const Plan&, void*, \
                             Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastunroll::cuda
