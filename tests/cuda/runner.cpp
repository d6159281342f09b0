// SPDX-License-Identifier: Apache-2.0
#include "runner.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace harness {
namespace {

template <class T>
Array values(const Memory<T>& memory) {
  return Array(memory.get(), memory.get() + memory.size());
}

}  // namespace

void check(Error error) {
  if (error == nullptr) return;
  std::fprintf(stderr, "%s\n", error);
  std::exit(2);
}

double error_of(const Array& ours, const Array& expected) {
  if (ours.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, scale = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    difference += (ours[i] - expected[i]) * (ours[i] - expected[i]);
    scale += expected[i] * expected[i];
  }
  const double error = std::sqrt(difference / std::max(scale, 1e-30));
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

template <class T>
Bound<T>::Bound(const Case& c, const Data& d, Precision precision) {
  const auto keep = [&](const Array& a) -> T* {
    arrays.push_back(Memory<T>::of(a));
    return arrays.back().get();
  };
  // A matrix with elements at row * row_stride + col * col_stride of every layer.
  const auto packed_matrix = [&](const Array& a, int rows, int cols, int row_stride, int col_stride,
                                 Layout layout) -> PackedMatrix<T> {
    if (a.empty()) return {};
    const std::int64_t size = static_cast<std::int64_t>(rows) * cols;
    PackProblem<T> p{keep(a),    static_cast<std::int64_t>(a.size()) / size,
                     rows,       cols,
                     size,       row_stride,
                     col_stride, layout};
    const std::size_t bytes = packed_bytes(rows, cols, sizeof(T), layout);
    packed.emplace_back(bytes * static_cast<std::size_t>(p.layers));
    check(pack(p, packed.back().get(), nullptr));
    return {reinterpret_cast<const T*>(packed.back().get()), rows, cols,
            p.layers > 1 ? static_cast<std::int64_t>(bytes / sizeof(T)) : 0};
  };
  net.batch = c.batch;
  net.n_measurements = c.gram ? 0 : c.m;
  net.n_atoms = c.n;
  net.n_layers = c.layers;
  const bool mixed = precision == Precision::mixed;
  net.gram = packed_matrix(d.gram, c.n, c.n, c.n, 1, Layout::plain);
  net.gram_t = packed_matrix(d.gram, c.n, c.n, 1, c.n, Layout::plain);
  net.dictionary_t =
      packed_matrix(d.dictionary, c.n, c.m, 1, c.n, mixed ? Layout::split_bf16 : Layout::plain);
  net.dictionary = packed_matrix(d.dictionary, c.m, c.n, c.n, 1, Layout::plain);
  net.weight = packed_matrix(d.weight, c.m, c.n, c.n, 1, mixed ? Layout::bf16 : Layout::plain);
  net.weight_t = packed_matrix(d.weight, c.n, c.m, 1, c.n, Layout::plain);
  net.linear = keep(d.linear);
  net.linear_layer_stride = c.per_layer ? c.batch * c.n : 0;
  net.measurements = keep(d.measurements);
  net.initial = keep(d.initial);
  net.previous = keep(d.previous);
  const auto parameter = [&](const Array& a, Axes axes) -> LayerParameter<T> {
    if (a.empty()) return {};
    const bool sample = axes == Axes::sample || axes == Axes::full;
    const bool atom = axes == Axes::atom || axes == Axes::full;
    const int cols = atom ? c.n : 1;
    return {keep(a), (sample ? c.batch : 1) * cols, sample ? cols : 0, atom ? 1 : 0};
  };
  net.step = parameter(d.step, c.step);
  net.threshold = parameter(d.threshold, c.threshold);
  net.rule_weight = keep(d.rule_weight);
  net.rule_bias = keep(d.rule_bias);
  net.rule_minimum = static_cast<T>(d.rule_minimum);
  net.rule_maximum = static_cast<T>(d.rule_maximum);
  net.momentum = keep(d.momentum);
  net.prox_shape = keep(d.shape);
  bypass = Memory<std::int64_t>::of(d.bypass);
  net.bypass = bypass.get();
  net.prox = c.prox;
  net.skip = c.skip;
  net.heavy_ball = c.heavy_ball;
  net.precision = precision;
}

template <class T>
Result run_forward(const Case& c, const Data& d, const Options& options, Path* path) {
  const Bound<T> bound(c, d, options.precision);
  const Plan plan = plan_forward(bound.net, options.device);
  *path = plan.path;
  if (plan.path == Path::none) return {};
  const auto rows = static_cast<std::size_t>(c.batch * c.n);
  const Memory<T> codes(rows);
  const Memory<T> iterates(rows * static_cast<std::size_t>(c.layers + 1));
  const Memory<unsigned char> workspace(plan.workspace);
  ForwardOutputs<T> out;
  out.codes = codes.get();
  out.iterates = iterates.get();
  check(forward(bound.net, out, plan, workspace.get(), nullptr));
  Result result;
  result.codes = values(codes);
  result.iterates = values(iterates);
  return result;
}

template <class T>
Result run_backward(const Case& c, const Data& d, const Options& options, Path* path) {
  const Bound<T> bound(c, d, options.precision);
  const auto like = [](const Array& a) { return Memory<T>(a.size()); };
  const Memory<T> grad_codes = Memory<T>::of(d.grad_codes);
  const Memory<T> grad_iterates = Memory<T>::of(d.grad_iterates);
  const Memory<T> linear = like(d.linear), gram = like(d.gram), dictionary = like(d.dictionary),
                  weight = like(c.tied ? Array() : d.weight), measurements = like(d.measurements),
                  initial = like(d.initial), step = like(d.step), threshold = like(d.threshold),
                  rule_weight = like(d.rule_weight), rule_bias = like(d.rule_bias),
                  momentum = like(d.momentum), shape = like(d.shape);
  BackwardArguments<T> args;
  args.grad_codes = grad_codes.get();
  args.grad_iterates = grad_iterates.get();
  args.linear = linear.get();
  args.gram = gram.get();
  args.dictionary = dictionary.get();
  args.weight = weight.get();
  args.measurements = measurements.get();
  args.initial = initial.get();
  args.step = step.get();
  args.threshold = threshold.get();
  args.rule_weight = rule_weight.get();
  args.rule_bias = rule_bias.get();
  args.momentum = momentum.get();
  args.prox_shape = shape.get();
  args.n_grams = args.n_weights = c.per_layer ? c.layers : 1;
  if (c.tied) args.n_weights = 0;

  const Plan plan = plan_backward(bound.net, args, options.device, options.budget);
  *path = plan.path;
  if (plan.path == Path::none) return {};
  const Memory<unsigned char> workspace(plan.workspace);
  check(backward(bound.net, args, plan, workspace.get(), nullptr));
  return {{},
          {},
          values(linear),
          values(gram),
          values(dictionary),
          values(weight),
          values(measurements),
          values(initial),
          values(step),
          values(threshold),
          values(rule_weight),
          values(rule_bias),
          values(momentum),
          values(shape)};
}

#define INSTANTIATE(T)                                                             \
  template struct Bound<T>;                                                        \
  template Result run_forward<T>(const Case&, const Data&, const Options&, Path*); \
  template Result run_backward<T>(const Case&, const Data&, const Options&, Path*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace harness
