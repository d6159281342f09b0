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
  d.multiprocessors = 1;
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
      with("tied",
           [](Case& c) {
             c.tied = true;
             c.batch = 17;
           }),
      with("weight per layer",
           [](Case& c) {
             c.per_layer = true;
             c.m = 17;
             c.n = 33;
           }),
      with("gram",
           [](Case& c) {
             c.gram = true;
             c.n = 37;
           }),
      with("gram per layer", [](Case& c) { c.gram = c.per_layer = true; }),
      with("one atom",
           [](Case& c) {
             c.n = c.m = c.batch = 1;
             c.level = 0.01;
           }),
      with("one layer",
           [](Case& c) {
             c.layers = 1;
             c.batch = 33;
           }),
      with("120 samples",
           [](Case& c) {
             c.layers = 2;
             c.batch = 120;
             c.m = 7;
             c.n = 9;
           }),
      with("two panels",
           [](Case& c) {
             c.n = 261;
             c.m = 9;
             c.layers = 2;
             c.batch = 3;
           }),
      with("two panels of residuals",
           [](Case& c) {
             c.m = 258;
             c.n = 9;
             c.layers = 2;
           }),
      with("gram of two panels",
           [](Case& c) {
             c.gram = true;
             c.n = 258;
             c.layers = 2;
           }),
      with("all zero", [](Case& c) { c.level = 100; }),
      with("dense",
           [](Case& c) {
             c.level = 1e-4;
             c.initial = true;
           }),
      with("atom",
           [](Case& c) {
             c.step = c.threshold = Axes::atom;
             c.batch = 35;
           }),
      with("sample",
           [](Case& c) {
             c.step = c.threshold = Axes::sample;
             c.batch = 19;
           }),
      with("full",
           [](Case& c) {
             c.step = c.threshold = Axes::full;
             c.initial = true;
           }),
      with("rule",
           [](Case& c) {
             c.rule = true;
             c.batch = 18;
           }),
      with("gram with rule", [](Case& c) { c.gram = c.rule = c.initial = true; }),
      with("bypass",
           [](Case& c) {
             c.bypass = 4;
             c.n = 40;
           }),
      with("gram with bypass",
           [](Case& c) {
             c.gram = true;
             c.bypass = 50;
             c.n = 34;
           }),
      with("momentum",
           [](Case& c) {
             c.momentum = c.initial = c.previous = true;
             c.batch = 21;
           }),
      with("momentum from x_0", [](Case& c) { c.momentum = c.initial = c.iterates = true; }),
      with("gram with momentum", [](Case& c) { c.gram = c.momentum = c.per_layer = true; }),
      with("heavy ball", [](Case& c) { c.momentum = c.heavy_ball = c.previous = true; }),
      with("gram with heavy ball",
           [](Case& c) { c.gram = c.momentum = c.heavy_ball = c.initial = true; }),
      with("no skip",
           [](Case& c) {
             c.skip = false;
             c.gram = true;
             c.initial = true;
           }),
      with("iterates", [](Case& c) { c.iterates = c.initial = true; }),
      with("nonnegative",
           [](Case& c) {
             c.prox = Prox::nonnegative;
             c.initial = true;
           }),
      with("hard", [](Case& c) { c.prox = Prox::hard; }),
      with("smooth",
           [](Case& c) {
             c.prox = Prox::smooth;
             c.rule = true;
           }),
      with("firm", [](Case& c) { c.prox = Prox::firm; }),
      with("scad",
           [](Case& c) {
             c.prox = Prox::scad;
             c.gram = true;
           }),
      with("nonnegative with bypass",
           [](Case& c) {
             c.prox = Prox::nonnegative;
             c.bypass = 2;
             c.rule = true;
           }),
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
const Mode kDouble = {"double", Precision::plain, 1e-12, 1e-11};
const Mode kModes[] = {{"plain", Precision::plain, 2e-6, 2e-5},
                       {"split", Precision::split, 2e-6, 2e-5},
                       {"tf32", Precision::tf32, 5e-3, 0.2},
                       {"mixed", Precision::mixed, 5e-2, 0.3}};

void compare(const std::string& name, const Result& ours, const Result& expected,
             double tolerance) {
  const std::pair<const char*, Array Result::*> fields[] = {{"codes", &Result::codes},
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

// How the passes are asked to run.
struct Setting {
  const char* name;
  Device device;
  std::size_t budget;  // bytes; 0: as many chunks as there are tiles
};
const Setting kWide = {"wide", device(227, 1), std::size_t{1} << 30};  // tiles of up to 64 samples
const Setting kSmall = {"small", device(64, 1), 0};                    // smaller tiles
const Setting kCluster = {"cluster", device(227, 8), std::size_t{1} << 30};

template <class T>
void check_pass(const Case& c, const Data& d, const Result& expected, const Mode& mode,
                const Setting& setting, bool backward) {
  const std::string name =
      c.name + " " + mode.name + " " + setting.name + (backward ? " backward" : " forward");
  if (!wanted(name)) return;
  Options options{mode.precision, setting.device, setting.budget};
  if (sizeof(T) == 8) options.device.multiprocessors = 4;  // fewer leave many samples to cuBLAS
  Path path = Path::none;
  const Result result =
      backward ? run_backward<T>(c, d, options, &path) : run_forward<T>(c, d, options, &path);
  if (path == Path::none) expect(name + ": takes the sizes", 1, 0);
  compare(name, result, expected, backward ? mode.backward : mode.forward);
}

template <class T>
void check_both(const Case& c, const Data& d, const Result& expected, const Mode& mode,
                const Setting& setting) {
  check_pass<T>(c, d, expected, mode, setting, false);
  check_pass<T>(c, d, expected, mode, setting, true);
}

// Every case in double and once in float, on clusters the forward pass; every precision and kind of
// tile with some of the cases.
void check_networks() {
  unsigned index = 0;
  for (const Case& c : cases()) {
    const Data d = make_data(c, index + 1);
    const Result expected = reference(c, d);
    check_both<double>(c, d, expected, kDouble, index % 2 == 0 ? kSmall : kWide);
    check_both<float>(c, d, expected, kModes[index % 2], kSmall);
    check_pass<float>(c, d, expected, kModes[0], kCluster, false);
    if (index % 4 == 0) check_both<float>(c, d, expected, kModes[2 + index / 4 % 2], kSmall);
    if (index % 4 == 3) check_both<float>(c, d, expected, kModes[index / 4 % 4], kWide);
    if (c.batch == 120) {
      for (const Mode& mode : kModes) check_both<float>(c, d, expected, mode, kWide);
    }
    ++index;
  }
}

}  // namespace

bool wanted(const std::string& name) { return name.find(only) != std::string::npos; }

void expect(const std::string& name, double error, double tolerance) {
  const bool good = error <= tolerance;
  std::printf("%s %.2e (%.0e) %s\n", good ? "ok    " : "FAILED", error, tolerance, name.c_str());
  if (!good) ++failures;
}

}  // namespace harness

int main(int argc, char** argv) {
  using namespace harness;
  if (argc > 1) only = argv[1];
  check_elements();
  check_networks();
  return failures == 0 ? 0 : 1;
}
