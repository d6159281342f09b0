// SPDX-License-Identifier: Apache-2.0
// Every kernel on small problems, emulated on the host, against the reference in double. With an
// argument, only the checks whose name contains it. Prints what fails and returns 1.
#include <cstdio>

#include "runner.h"

using namespace harness;

namespace {

Case named(const char* name) {
  Case c;
  c.name = name;
  return c;
}

int failures = 0;

void expect(const std::string& name, double error, double tolerance) {
  std::printf("%-60s %.2e (%.0e)\n", name.c_str(), error, tolerance);
  if (error <= tolerance) return;
  std::printf("FAILED: %s\n", name.c_str());
  ++failures;
}

Device hopper() {
  Device d;
  d.multiprocessors = 2;
  d.shared_bytes = 227 << 10;
  d.cluster_blocks = 8;
  d.major = 9;
  return d;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 1 ? argv[1] : "";
  Case c = named("first");
  const Data d = make_data(c, 1);
  const Result expected = reference(c, d);
  Options o;
  o.device = hopper();
  o.device.cluster_blocks = 1;
  Path path;
  expect("double", error_of(run_forward<double>(c, d, o, &path).iterates, expected.iterates), 1e-13);
  expect("plain", error_of(run_forward<float>(c, d, o, &path).iterates, expected.iterates), 1e-6);
  o.precision = Precision::split;
  expect("split", error_of(run_forward<float>(c, d, o, &path).iterates, expected.iterates), 1e-6);
  o.precision = Precision::tf32;
  expect("tf32", error_of(run_forward<float>(c, d, o, &path).iterates, expected.iterates), 1e-2);
  o.precision = Precision::mixed;
  expect("mixed", error_of(run_forward<float>(c, d, o, &path).iterates, expected.iterates), 1e-2);
  o.device = hopper();
  o.precision = Precision::plain;
  expect("cluster", error_of(run_forward<float>(c, d, o, &path).iterates, expected.iterates), 1e-6);
  std::printf("path %d\n", static_cast<int>(path));
  return failures == 0 ? 0 : 1;
}
