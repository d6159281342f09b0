// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "cpu/kernels.h"
#include "cpu/shrink.h"
#include "cpu/tape.h"
#include "cpu/unrolled.h"

namespace check {
namespace {

using namespace fastunroll;

constexpr double kUnits = 2000;  // roundings that K layers, forward and backward, may differ by
constexpr int kThreads = 3;

enum class Form { gram, factored, mixed };  // mixed: forward in Gram, backward in factored form
enum class Momentum { none, nesterov, heavy_ball };

struct Case {
  const char* name;
  Form form = Form::gram;
  Prox prox = Prox::soft;
  bool matrix_per_layer = false;
  bool packed_by_tile = false;  // those of the layers
  bool tied = false;            // W = A
  bool per_atom = false;
  bool per_sample = false;
  bool rule = false;
  Momentum momentum = Momentum::none;
  bool selects = false;
  bool objective = false;
  bool starts = false;  // x_0 and x_{-1} are given
  bool skip = true;
  bool tape = false;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases(23);
  cases[0] = {"gram"};
  cases[1] = {"factored", Form::factored};
  cases[2] = {"mixed, tape", Form::mixed};
  cases[3] = {"gram, tape, per atom"};
  cases[4] = {"factored, W = A, per sample", Form::factored};
  cases[5] = {"gram per layer, per atom and sample"};
  cases[6] = {"factored per layer, tape, objective", Form::factored};
  cases[7] = {"gram, Nesterov, objective"};
  cases[8] = {"factored, heavy ball", Form::factored};
  cases[9] = {"gram, rule, objective"};
  cases[10] = {"factored, rule", Form::factored};
  cases[11] = {"gram, selection, no skip, tape"};
  cases[12] = {"factored, non-negative", Form::factored, Prox::nonnegative};
  cases[13] = {"gram, smooth, per atom", Form::gram, Prox::smooth};
  cases[14] = {"factored, firm, tape", Form::factored, Prox::firm};
  cases[15] = {"gram, SCAD, per sample", Form::gram, Prox::scad};
  cases[16] = {"factored, smooth, tape", Form::factored, Prox::smooth};
  cases[17] = {"factored, selection, tape, objective", Form::factored};
  cases[18] = {"mixed, SCAD, tape", Form::mixed, Prox::scad};
  cases[19] = {"gram per layer, packed by the tile"};
  cases[20] = {"factored per layer, packed by the tile, tape", Form::factored};
  cases[21] = {"factored, W = A, tape", Form::factored};
  cases[22] = {"mixed, W = A, tape", Form::mixed};
  for (const int i : {4, 21, 22}) cases[i].tied = true;
  for (const int i : {5, 6, 19, 20}) cases[i].matrix_per_layer = true;
  cases[19].packed_by_tile = cases[20].packed_by_tile = true;
  for (const int i : {3, 5, 13}) cases[i].per_atom = true;
  for (const int i : {4, 5, 15}) cases[i].per_sample = true;
  for (const int i : {2, 3, 6, 11, 14, 16, 17, 18, 20, 21, 22}) cases[i].tape = true;
  for (const int i : {1, 6, 7, 9, 17}) cases[i].objective = true;
  for (const int i : {0, 1, 7, 8, 10, 15}) cases[i].starts = true;
  cases[7].momentum = Momentum::nesterov;
  cases[8].momentum = Momentum::heavy_ball;
  cases[9].rule = cases[10].rule = true;
  cases[11].selects = cases[17].selects = true;
  cases[11].skip = false;
  return cases;
}

struct Sizes {
  std::int64_t batch, measurements, atoms, layers;
};

constexpr Sizes kSizes[] = {
    {1, 3, 5, 1}, {7, 13, 33, 3}, {70, 9, 131, 2}, {5, 9, 21, 16}, {3, 141, 37, 2}};
constexpr double kThresholds[] = {0, 0.1, 50};  // from all entries to none

// Numbers of a problem; the problem points at them.
template <class T>
struct Data {
  Data(Random& random, const Case& c, const Sizes& s, double threshold) {
    const auto [batch, m, n, layers] = s;
    const std::int64_t matrices = c.matrix_per_layer ? layers : 1;
    const double entry = std::sqrt(3.0 / static_cast<double>(m));
    const std::vector<T> a = random.numbers<T>(m * n, 0, entry);
    w = random.numbers<T>(matrices * m * n, 0, entry / 4);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = (c.tied ? T(0) : w[i]) + a[i % a.size()];
    gram.assign(static_cast<std::size_t>(matrices * n * n), T(0));
    for (std::int64_t at = 0; at < matrices * n * n; ++at) {
      const std::int64_t l = at / (n * n), i = at / n % n, j = at % n;
      for (std::int64_t r = 0; r < m; ++r) gram[at] += a[r * n + i] * w[(l * m + r) * n + j];
    }
    measurements = random.numbers<T>(batch * m, 0, 1);
    linear = random.numbers<T>(batch * n, 0, 1);
    initial = random.numbers<T>(batch * n, 0, 0.5);
    previous = random.numbers<T>(batch * n, 0, 0.5);
    const std::int64_t cells = (c.per_sample ? batch : 1) * (c.per_atom ? n : 1);
    step = random.numbers<T>(layers * cells, 0.1, 0.02);
    thresholds = random.numbers<T>(layers * cells, threshold, threshold / 4);
    rule_weight = random.numbers<T>(layers, 0.1, 0.1);
    rule_bias = random.numbers<T>(layers, 0, 0.5);
    momentum = random.numbers<T>(layers, 0.4, 0.2);
    shape = random.numbers<T>(layers, 3, 0.5);
    bypass.assign(static_cast<std::size_t>(layers), n / 8);

    const bool by_tile = c.packed_by_tile && layers > 1;
    const auto pack = [=](std::vector<T>& to, const std::vector<T>& from, std::int64_t layers_,
                          std::int64_t rows, std::int64_t cols, bool turned) {
      to.resize(static_cast<std::size_t>(layers_ * rows * cpu::padded<T>(cols)));
      cpu::pack<T>(from.data(), layers_, rows, cols, rows * cols, turned ? 1 : cols,
                   turned ? rows : 1, to.data());
      return PackedMatrix<T>{by_tile && layers_ > 1 ? nullptr : to.data(), rows, cols,
                             layers_ > 1 ? rows * cpu::padded<T>(cols) : 0};
    };
    Problem<T> p;
    p.batch = batch;
    p.n_measurements = m;
    p.n_atoms = n;
    p.n_layers = layers;
    p.dictionary_t = pack(packed[0], a, 1, n, m, true);
    p.measurements = measurements.data();
    const std::int64_t sample_stride = c.per_sample ? (c.per_atom ? n : 1) : 0;
    p.threshold = {thresholds.data(), cells, sample_stride, c.per_atom};
    if (c.rule) {
      p.rule_weight = rule_weight.data();
      p.rule_bias = rule_bias.data();
      p.rule_minimum = T(0.05);
      p.rule_maximum = T(0.15);
    } else {
      p.step = {step.data(), cells, sample_stride, c.per_atom};
    }
    if (c.starts) {
      p.initial = initial.data();
      p.previous = previous.data();
    }
    if (c.momentum != Momentum::none) p.momentum = momentum.data();
    if (c.prox >= Prox::firm) p.prox_shape = shape.data();
    if (c.selects) p.bypass = bypass.data();
    p.prox = c.prox;
    p.skip = c.skip;
    p.heavy_ball = c.momentum == Momentum::heavy_ball;
    p.with_objective = c.objective;
    p.objective_weight = T(0.1);
    forward = backward = p;
    if (c.form != Form::gram) {
      for (Problem<T>* problem : {&forward, &backward}) {
        problem->weight = pack(packed[1], w, matrices, m, n, false);
        problem->weight_t = pack(packed[2], w, matrices, n, m, true);
      }
    }
    if (by_tile && c.form == Form::factored) {
      forward.weight_layers = backward.weight_layers = {w.data(), m * n, n, 1};
    }
    if (c.form == Form::factored) return;
    if (by_tile) forward.gram_layers = {gram.data(), n * n, n, 1};
    forward.gram = pack(packed[3], gram, matrices, n, n, false);
    forward.gram_t = pack(packed[4], gram, matrices, n, n, true);
    if (c.form == Form::mixed) return;  // c = b W
    forward.linear = linear.data();
    backward = forward;
  }

  Problem<T> forward, backward;
  std::vector<T> w, gram, measurements, linear, initial, previous, step, thresholds, rule_weight,
      rule_bias, momentum, shape;
  std::vector<std::int64_t> bypass;
  std::vector<T> packed[5];
};

template <class T>
struct Output {
  const char* name;
  std::vector<T> values;
};

// Everything that a case returns, on so many threads.
template <class T>
std::vector<Output<T>> run(const Case& c, const Data<T>& data, Random random, int threads) {
  const Problem<T>& p = data.backward;
  const std::int64_t rows = (p.n_layers + 1) * p.batch;
  std::vector<Output<T>> outputs;
  outputs.reserve(20);  // pointers to them stay
  const auto output = [&](const char* name, std::int64_t count, bool wanted = true) -> T* {
    if (!wanted) return nullptr;
    outputs.push_back({name, std::vector<T>(static_cast<std::size_t>(count))});
    return outputs.back().values.data();
  };
  cpu::Tape tape;
  const ForwardOutputs<T> out{output("codes", p.batch * p.n_atoms),
                              output("objective", rows, c.objective),
                              output("iterates", rows * p.n_atoms), c.tape ? &tape : nullptr};
  if (cpu::unrolled_forward(data.forward, out, threads) != Status::ok) output("status", 1)[0] = 1;

  const std::vector<T> grad_codes = random.numbers<T>(p.batch * p.n_atoms, 0, 1);
  const std::vector<T> grad_objective = random.numbers<T>(rows, 0, 1);
  const std::vector<T> grad_iterates = random.numbers<T>(rows * p.n_atoms, 0, 1);
  BackwardArguments<T> args;
  args.tape = out.tape;
  args.grad_codes = grad_codes.data();
  if (c.objective) args.grad_objective = grad_objective.data();
  args.grad_iterates = grad_iterates.data();
  const std::int64_t matrices = c.matrix_per_layer ? p.n_layers : 1;
  const std::int64_t area = p.n_atoms * p.n_measurements;
  const bool gram = c.form == Form::gram;
  args.n_grams = matrices;
  args.n_weights = c.tied ? 0 : matrices;
  args.linear = output("c", p.batch * p.n_atoms, gram);
  args.gram = output("G", matrices * p.n_atoms * p.n_atoms, gram);
  args.dictionary = output("A", area, !gram || c.objective);
  args.weight = output("W", matrices * area, !gram && !c.tied);
  args.measurements = output("b", p.batch * p.n_measurements, !gram || c.objective);
  args.initial = output("x_0", p.batch * p.n_atoms, c.starts);
  const auto cells = static_cast<std::int64_t>(data.step.size());
  args.step = output("step", cells, !c.rule);
  args.threshold = output("threshold", cells);
  args.rule_weight = output("rule's weight", p.n_layers, c.rule);
  args.rule_bias = output("rule's bias", p.n_layers, c.rule);
  args.momentum = output("momentum", p.n_layers, c.momentum != Momentum::none);
  args.prox_shape = output("shape", p.n_layers, p.prox_shape != nullptr);
  if (cpu::unrolled_backward(p, args, threads) != Status::ok) output("status", 1)[0] = 2;
  return outputs;
}

template <class T>
void check_layers(Results& results, const std::string& type) {
  Random random;
  for (const Case& c : all_cases()) {
    for (const Sizes& s : kSizes) {
      for (const double threshold : kThresholds) {
        results.begin(type + ", " + c.name + ", " + std::to_string(s.atoms) + " atoms, threshold " +
                      std::to_string(threshold) + ": ");
        const Data<T> data(random, c, s, threshold);
        const std::vector<Output<T>> threaded = run(c, data, random, kThreads);
        const std::vector<Output<T>> serial = run(c, data, random, 1);
        for (std::size_t i = 0; i < threaded.size(); ++i) {
          results.add(threaded[i].name, threaded[i].values, kUnits);
          results.expect_same(std::string(threaded[i].name) + " on 1 thread", serial[i].values,
                              threaded[i].values);
        }
      }
    }
  }
}

template <class T>
void check_single_step(Results& results, const std::string& type) {
  constexpr std::int64_t kRows = 131;
  constexpr std::int64_t kCols = 517;
  Random random;
  const std::vector<T> u = random.numbers<T>(kRows * kCols, 0, 1);
  const std::vector<T> grad = random.numbers<T>(kRows * kCols, 0, 1);
  const std::vector<T> threshold = random.numbers<T>(kCols, 0.5, 0.4);
  for (const Prox prox : {Prox::soft, Prox::nonnegative, Prox::smooth}) {
    for (const bool per_atom : {false, true}) {
      results.begin(type + ", shrinkage " + std::to_string(static_cast<int>(prox)) +
                    (per_atom ? ", per atom: " : ": "));
      const cpu::ShrinkProblem<T> p{u.data(), kRows, kCols, threshold.data(), 0, per_atom, prox};
      std::vector<T> out(u.size()), grad_u(u.size()), grad_threshold(per_atom ? kCols : 1);
      cpu::shrink(p, out.data(), kThreads);
      results.add("x", out, kUnits);
      cpu::shrink_backward(p, grad.data(), grad_u.data(), grad_threshold.data(), kThreads);
      results.add("u", grad_u, kUnits);
      results.add("threshold", grad_threshold, kUnits);
    }
  }
  std::vector<T> matrix(static_cast<std::size_t>(kCols * cpu::padded<T>(kRows)));
  cpu::pack<T>(u.data(), 1, kCols, kRows, 0, 1, kCols, matrix.data());
  std::vector<T> out(static_cast<std::size_t>(kRows * kRows));
  results.begin(type + ": ");
  cpu::multiply<T>(grad.data(), kRows, {matrix.data(), kCols, kRows, 0}, 1, out.data(), kThreads);
  results.add("multiply", out, kUnits);
}

}  // namespace

void check_recursion(Results& results) {
  check_layers<float>(results, "float");
  check_layers<double>(results, "double");
  check_single_step<float>(results, "float");
  check_single_step<double>(results, "double");
}

}  // namespace check
