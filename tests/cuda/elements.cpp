// SPDX-License-Identifier: Apache-2.0
// Checks of the bare shrinkage and of one layer by itself.
#include <cmath>
#include <random>

#include "checks.h"

namespace harness {
namespace {

// Numbers of one type of elements, by way of their bits.
struct Elements {
  Type type;
  int bytes;
  double tolerance;
  const char* name;
};
const Elements kTypes[] = {{Type::float64, 8, 1e-14, "float64"},
                           {Type::float32, 4, 1e-6, "float32"},
                           {Type::float16, 2, 2e-3, "float16"},
                           {Type::bfloat16, 2, 1e-2, "bfloat16"}};

double decode(Type type, const unsigned char* at) {
  if (type == Type::float64) {
    double a;
    std::memcpy(&a, at, sizeof(a));
    return a;
  }
  std::uint32_t bits = 0;
  std::memcpy(&bits, at, type == Type::float32 ? 4 : 2);
  if (type == Type::bfloat16) bits <<= 16;
  if (type == Type::float16) {
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const double size =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    return (bits >> 15) != 0 ? -size : size;
  }
  float a;
  std::memcpy(&a, &bits, sizeof(a));
  return static_cast<double>(a);
}

// Numbers that all types hold exactly: multiples of 1/64 below 4.
void encode(Type type, double value, unsigned char* at) {
  const auto single = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &single, sizeof(bits));
  if (type == Type::float64) std::memcpy(at, &value, sizeof(value));
  if (type == Type::float32) std::memcpy(at, &bits, 4);
  if (type == Type::bfloat16) bits >>= 16;
  if (type == Type::float16) {
    const std::uint32_t sign = (bits >> 16) & 0x8000;
    bits = value == 0 ? 0 : sign | (((bits >> 13) & 0x3ffff) - (112 << 10));
  }
  if (type >= Type::float16) std::memcpy(at, &bits, 2);
}

Memory<unsigned char> encoded(const Elements& e, const Array& values) {
  Memory<unsigned char> memory(values.size() * static_cast<std::size_t>(e.bytes));
  for (std::size_t i = 0; i < values.size(); ++i) {
    encode(e.type, values[i], memory.get() + i * static_cast<std::size_t>(e.bytes));
  }
  return memory;
}

Array decoded(const Elements& e, const Memory<unsigned char>& memory) {
  Array values(memory.size() / static_cast<std::size_t>(e.bytes));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = decode(e.type, memory.get() + i * static_cast<std::size_t>(e.bytes));
  }
  return values;
}

void check_shrink(const Elements& e, int rows, int cols, bool per_row, bool per_col, Prox prox) {
  std::mt19937 engine(7);
  std::uniform_int_distribution<int> draw(-200, 200);
  const auto size = static_cast<std::size_t>(rows * cols);
  Array u(size), grad(size);
  for (double& a : u) a = draw(engine) / 64.0;
  for (double& a : grad) a = draw(engine) / 64.0;
  // bfloat16 holds 8 bits.
  if (e.type == Type::bfloat16) {
    for (Array* array : {&u, &grad}) {
      for (double& a : *array) a = std::round(a * 16) / 16;
    }
  }
  Array t(static_cast<std::size_t>((per_row ? rows : 1) * (per_col ? cols : 1)));
  for (double& a : t) a = std::abs(draw(engine) / 2) / 64.0;
  if (e.type == Type::bfloat16) {
    for (double& a : t) a = std::round(a * 16) / 16;
  }
  const std::int64_t row_stride = per_row ? (per_col ? cols : 1) : 0;
  const std::int64_t col_stride = per_col ? 1 : 0;
  Array x(size), grad_u(size), grad_t(t.size());
  for (std::size_t i = 0; i < size; ++i) {
    const auto at = static_cast<std::size_t>(static_cast<std::int64_t>(i) / cols * row_stride +
                                             static_cast<std::int64_t>(i) % cols * col_stride);
    const Shrunk s = shrink(u[i], t[at], prox, 0, false);
    x[i] = s.value;
    grad_u[i] = grad[i] * s.u;
    grad_t[at] += grad[i] * s.threshold;
  }
  const auto u_bits = encoded(e, u), t_bits = encoded(e, t), grad_bits = encoded(e, grad);
  const Memory<unsigned char> out(u_bits.size()), out_u(u_bits.size()), out_t(t_bits.size());
  const ShrinkProblem p{e.type,       u_bits.get(), rows,       cols,
                        t_bits.get(), row_stride,   col_stride, prox};
  check(fastunroll::cuda::shrink(p, out.get(), nullptr));
  const Memory<unsigned char> workspace(shrink_backward_workspace(p));
  check(shrink_backward(p, grad_bits.get(), out_u.get(), out_t.get(), workspace.get(), nullptr));
  const std::string name = std::string("shrink ") + e.name + " " + std::to_string(rows) + "x" +
                           std::to_string(cols) + (per_row ? " per row" : "") +
                           (per_col ? " per column" : "") + " prox " +
                           std::to_string(static_cast<int>(prox));
  if (!wanted(name)) return;
  expect(name, error_of(decoded(e, out), x), e.tolerance);
  expect(name + " grad_u", error_of(decoded(e, out_u), grad_u), e.tolerance);
  expect(name + " grad_threshold", error_of(decoded(e, out_t), grad_t), 2 * e.tolerance);
}

// A network of one layer whose product is made here, against the reference.
template <class T>
void check_layer(const Case& c, unsigned seed, double tolerance) {
  if (!wanted(c.name)) return;
  const Data d = make_data(c, seed);
  const Result expected = reference(c, d);
  const Bound<T> bound(c, d, Precision::plain);
  const auto size = static_cast<std::size_t>(c.batch * c.n);
  const Memory<T> initial = Memory<T>::of(d.initial), previous = Memory<T>::of(d.previous);
  const Memory<T> y(size), direction(size), next(size), grad_v(size), grad_y(size);
  const Memory<T> norm(static_cast<std::size_t>(c.batch)), rank(norm.size());
  check(extrapolate(bound.net, 0, initial.get(), previous.get(), y.get(), nullptr));
  for (int s = 0; s < c.batch; ++s) {
    for (int i = 0; i < c.n; ++i) {
      double v = -d.linear[static_cast<std::size_t>(s * c.n + i)];
      for (int j = 0; j < c.n; ++j) {
        v += static_cast<double>((c.heavy_ball ? initial : y).get()[s * c.n + j]) *
             d.gram[static_cast<std::size_t>(j * c.n + i)];
      }
      direction.get()[s * c.n + i] = static_cast<T>(v);
    }
  }
  const LayerArrays<T> arrays{initial.get(), previous.get(), direction.get(),
                              next.get(),    norm.get(),     rank.get()};
  check(layer_forward(bound.net, 0, arrays, nullptr));
  expect(c.name + ": codes", error_of(Array(next.get(), next.get() + size), expected.codes),
         tolerance);

  const Memory<T> grad = Memory<T>::of(d.grad_codes);
  const auto like = [](const Array& a) { return Memory<T>(a.size()); };
  const Memory<T> step = like(d.step), threshold = like(d.threshold),
                  rule_weight = like(d.rule_weight), rule_bias = like(d.rule_bias),
                  shape = like(d.shape);
  const LayerGradients<T> gradients{grad.get(),      grad_v.get(),    grad_y.get(),
                                    step.get(),      threshold.get(), rule_weight.get(),
                                    rule_bias.get(), shape.get()};
  const Memory<unsigned char> workspace(layer_backward_workspace(bound.net));
  check(layer_backward(bound.net, 0, arrays, gradients, workspace.get(), nullptr));
  Array minus_grad_v(grad_v.get(), grad_v.get() + size);
  for (double& a : minus_grad_v) a = -a;
  expect(c.name + ": dc", error_of(minus_grad_v, expected.linear), tolerance);
  const auto compare = [&](const char* what, const Memory<T>& ours, const Array& theirs) {
    if (theirs.empty()) return;
    const Array values(ours.get(), ours.get() + ours.size());
    expect(c.name + ": " + what, error_of(values, theirs), tolerance);
  };
  compare("dstep", step, expected.step);
  compare("dthreshold", threshold, expected.threshold);
  compare("drule_weight", rule_weight, expected.rule_weight);
  compare("drule_bias", rule_bias, expected.rule_bias);
  compare("dshape", shape, expected.shape);
}

}  // namespace

void check_elements() {
  for (const Elements& e : kTypes) {
    for (const int shape : {0, 1, 2, 3}) {
      const bool per_row = shape % 2 == 1, per_col = shape >= 2;
      check_shrink(e, 5, 7, per_row, per_col, Prox::soft);
      check_shrink(e, 3, 264, per_row, per_col, Prox::nonnegative);
    }
    check_shrink(e, 1, 1, false, false, Prox::soft);
    check_shrink(e, 300, 8, false, true, Prox::soft);
    check_shrink(e, 9, 1100, false, false, Prox::smooth);
  }
  Case c;
  c.gram = c.initial = c.previous = c.momentum = true;
  c.layers = 1;
  c.batch = 11;
  c.name = "layer";
  check_layer<double>(c, 1, 1e-12);
  check_layer<float>(c, 1, 2e-6);
  for (const Axes axes : {Axes::atom, Axes::sample, Axes::full}) {
    c.name = "layer with axes " + std::to_string(static_cast<int>(axes));
    c.step = c.threshold = axes;
    check_layer<double>(c, 2, 1e-12);
  }
  c.name = "layer with rule and bypass";
  c.rule = true;
  c.bypass = 3;
  check_layer<double>(c, 3, 1e-12);
  c.bypass = 0;
  c.heavy_ball = true;
  c.prox = Prox::firm;
  c.name = "layer with rule, heavy ball and firm shrinkage";
  check_layer<double>(c, 4, 1e-12);
}

}  // namespace harness
