// SPDX-License-Identifier: Apache-2.0
// Every kernel on small problems, emulated on the host, against the reference in double. With an
// argument, only the checks whose name contains it. Prints every check; returns 1 if one fails.
#include <cstdio>
#include <utility>
#include <vector>

#include "checks.h"

namespace harness {
namespace {

int failures = 0;
std::string only;

Device device(int shared_kilobytes, int cluster_blocks) {
  Device d;
  d.multiprocessors = 2;
  d.shared_bytes = shared_kilobytes << 10;
  d.cluster_blocks = cluster_blocks;
  return d;
}

template <class Change>
Case with(const char* name, Change change) {
  Case c;
  c.name = name;
  change(c);
  return c;
}

// Every option, every shape of every parameter, sizes around those of tiles, slabs and panels.
std::vector<Case> cases() {
  return {
      with("factored", [](Case&) {}),
      with("tied", [](Case& c) { c.tied = true; c.batch = 17; }),
      with("weight per layer", [](Case& c) { c.per_layer = true; c.m = 17; c.n = 33; }),
      with("gram", [](Case& c) { c.gram = true; c.n = 37; }),
      with("gram per layer", [](Case& c) { c.gram = c.per_layer = true; }),
      with("one atom", [](Case& c) { c.n = c.m = c.batch = 1; c.level = 0.01; }),
      with("one layer", [](Case& c) { c.layers = 1; c.batch = 33; }),
      with("two panels", [](Case& c) { c.n = 261; c.m = 9; c.layers = 2; c.batch = 3; }),
      with("two panels of residuals", [](Case& c) { c.m = 258; c.n = 11; c.layers = 2; }),
      with("gram of two panels", [](Case& c) { c.gram = true; c.n = 258; c.layers = 2; }),
      with("all zero", [](Case& c) { c.level = 100; }),
      with("dense", [](Case& c) { c.level = 1e-4; c.initial = true; }),
      with("atom", [](Case& c) { c.step = c.threshold = Axes::atom; c.batch = 35; }),
      with("sample", [](Case& c) { c.step = c.threshold = Axes::sample; c.batch = 19; }),
      with("full", [](Case& c) { c.step = c.threshold = Axes::full; c.initial = true; }),
      with("rule", [](Case& c) { c.rule = true; c.batch = 18; }),
      with("gram with rule", [](Case& c) { c.gram = c.rule = c.initial = true; }),
      with("bypass", [](Case& c) { c.bypass = 4; c.n = 40; }),
      with("gram with bypass", [](Case& c) { c.gram = true; c.bypass = 50; c.n = 34; }),
      with("momentum", [](Case& c) { c.momentum = c.initial = c.previous = true; c.batch = 21; }),
      with("momentum from x_0", [](Case& c) { c.momentum = c.initial = c.iterates = true; }),
      with("gram with momentum", [](Case& c) { c.gram = c.momentum = c.per_layer = true; }),
      with("heavy ball", [](Case& c) { c.momentum = c.heavy_ball = c.previous = true; }),
      with("gram with heavy ball",
           [](Case& c) { c.gram = c.momentum = c.heavy_ball = c.initial = true; }),
      with("no skip", [](Case& c) { c.skip = false; c.gram = true; c.initial = true; }),
      with("iterates", [](Case& c) { c.iterates = c.initial = true; }),
      with("nonnegative", [](Case& c) { c.prox = Prox::nonnegative; c.initial = true; }),
      with("hard", [](Case& c) { c.prox = Prox::hard; }),
      with("smooth", [](Case& c) { c.prox = Prox::smooth; c.rule = true; }),
      with("firm", [](Case& c) { c.prox = Prox::firm; }),
      with("scad", [](Case& c) { c.prox = Prox::scad; c.gram = true; }),
      with("nonnegative with bypass",
           [](Case& c) { c.prox = Prox::nonnegative; c.bypass = 2; c.rule = true; }),
  };
}

struct Mode {
  const char* name;
  Precision precision;
  double forward;
  double backward;
};
// Products of 10 bits (tf32) or 8 bits (mixed, v) change the support here and there, and with it
// the gradients.
const Mode kModes[] = {{"plain", Precision::plain, 2e-6, 2e-5},
                       {"split", Precision::split, 2e-6, 2e-5},
                       {"tf32", Precision::tf32, 5e-3, 0.1},
                       {"mixed", Precision::mixed, 5e-2, 0.3}};

bool wanted(const std::string& name) { return name.find(only) != std::string::npos; }

void compare(const std::string& name, const Result& ours, const Result& expected,
             double tolerance) {
  const std::pair<const char*, Array Result::*> fields[] = {
      {"codes", &Result::codes},
      {"iterates", &Result::iterates},
      {"dc", &Result::linear},
      {"dG", &Result::gram},
      {"dA", &Result::dictionary_t},
      {"dW", &Result::weight_t},
      {"db", &Result::measurements},
      {"dx_0", &Result::initial},
      {"dstep", &Result::step},
      {"dthreshold", &Result::threshold},
      {"drule_weight", &Result::rule_weight},
      {"drule_bias", &Result::rule_bias},
      {"dmomentum", &Result::momentum},
      {"dshape", &Result::shape}};
  for (const auto& [field, member] : fields) {
    if ((ours.*member).empty()) continue;
    expect(name + ": " + field, error_of(ours.*member, expected.*member), tolerance);
  }
}

void check_case(const Case& c, const Data& d, const Result& expected, const Mode& mode,
                const std::string& name, bool backward) {
  // The first fits tiles of 64 samples, or 32 of double; the second small ones only.
  const Options settings[] = {
      {mode.precision, device(227, 1), true, 0},
      {mode.precision, device(48, 1), false, 0},
      {mode.precision, device(227, 8), false, std::size_t{1} << 30}};
  const char* const names[] = {" traced", " small", " cluster"};
  for (int i = 0; i < 3; ++i) {
    const std::string full = name + names[i];
    if (!wanted(full)) continue;
    Path path = Path::none;
    const bool wide = std::string(mode.name) == "double";
    const auto run = [&](auto forward, auto back) {
      const Result result = backward ? back(c, d, settings[i], &path)
                                     : forward(c, d, settings[i], &path);
      compare(full, result, expected, backward ? mode.backward : mode.forward);
    };
    wide ? run(run_forward<double>, run_backward<double>)
         : run(run_forward<float>, run_backward<float>);
    if (path == Path::none && i != 1) expect(full + ": takes the sizes", 1, 0);
  }
}

void check_network() {
  unsigned seed = 1;
  for (const Case& c : cases()) {
    const Data d = make_data(c, seed++);
    const Result expected = reference(c, d);
    const Mode exact{"double", Precision::plain, 1e-12, 1e-11};
    check_case(c, d, expected, exact, c.name + " double forward", false);
    check_case(c, d, expected, exact, c.name + " double backward", true);
    for (const Mode& mode : kModes) {
      check_case(c, d, expected, mode, c.name + " " + mode.name + " forward", false);
      check_case(c, d, expected, mode, c.name + " " + mode.name + " backward", true);
    }
  }
}

}  // namespace

void expect(const std::string& name, double error, double tolerance) {
  const bool good = error <= tolerance;
  std::printf("%s %.2e (%.0e) %s\n", good ? "ok    " : "FAILED", error, tolerance, name.c_str());
  if (!good) ++failures;
}

}  // namespace harness

int main(int argc, char** argv) {
  using namespace harness;
  if (argc > 1) only = argv[1];
  check_network();
  return failures == 0 ? 0 : 1;
}
