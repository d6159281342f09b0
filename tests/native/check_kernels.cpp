// SPDX-License-Identifier: Apache-2.0
// Compares the active instruction set (FASTUNROLL_ISA, or the best one) with the generic code. The
// choice is made once per process, so the generic results come from a child process.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "check.h"
#include "cpu/kernels.h"

namespace {

check::Results run() {
  check::Results results;
  check::check_primitives(results);
  check::check_recursion(results);
  for (const std::string& name : results.broken()) std::printf("not the same: %s\n", name.c_str());
  return results;
}

// The generic results one after the other, each behind its length; none where the child failed.
std::vector<double> generic_values() {
  std::FILE* file = std::tmpfile();
  if (file == nullptr) return {};
  const pid_t child = fork();
  if (child == 0) {
    setenv("FASTUNROLL_ISA", "generic", 1);
    const check::Results results = run();
    for (const check::Result& result : results.all()) {
      const auto length = static_cast<double>(result.values.size());
      std::fwrite(&length, sizeof(double), 1, file);
      if (result.values.empty()) continue;
      std::fwrite(result.values.data(), sizeof(double), result.values.size(), file);
    }
    std::fflush(nullptr);
    _exit(results.broken().empty() ? EXIT_SUCCESS : EXIT_FAILURE);
  }
  int status = EXIT_FAILURE;
  waitpid(child, &status, 0);
  std::vector<double> values;
  if (status == EXIT_SUCCESS) {
    values.resize(static_cast<std::size_t>(std::ftell(file)) / sizeof(double));
    std::rewind(file);
    if (std::fread(values.data(), sizeof(double), values.size(), file) != values.size()) return {};
  }
  std::fclose(file);
  return values;
}

// The largest difference in units of what is allowed; NaN agrees with NaN alone.
double difference(const check::Result& result, const double* wanted, std::size_t length) {
  if (length != result.values.size()) return HUGE_VAL;
  double scale = 1;
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    if (std::isfinite(wanted[i])) scale = std::max(scale, std::fabs(wanted[i]));
  }
  double largest = 0;
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    const double a = result.values[i];
    if (a == wanted[i] || (std::isnan(a) && std::isnan(wanted[i]))) continue;
    const double error = std::fabs(a - wanted[i]) / (result.tolerance * scale);
    largest = std::max(largest, std::isnan(error) ? HUGE_VAL : error);
  }
  return largest;
}

}  // namespace

int main() {
  const std::vector<double> wanted = generic_values();
  if (const char* error = fastunroll::cpu::isa_error()) {
    std::printf("%s\n", error);
    return EXIT_FAILURE;
  }
  const check::Results results = run();
  std::size_t failed = results.broken().size();
  std::size_t at = 0;
  double worst = 0;
  for (const check::Result& result : results.all()) {
    if (at == wanted.size()) {
      std::printf("the generic code gave no result: %s\n", result.name.c_str());
      return EXIT_FAILURE;
    }
    const auto length = static_cast<std::size_t>(wanted[at++]);
    const double found = difference(result, wanted.data() + at, length);
    at += length;
    worst = std::max(worst, found);
    if (found <= 1) continue;
    std::printf("differs by %.3g times the tolerance: %s\n", found, result.name.c_str());
    ++failed;
  }
  std::printf("%s: %zu results, %zu wrong, largest difference %.2f of the tolerance\n",
              fastunroll::cpu::active_kernels().isa, results.all().size(), failed, worst);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
