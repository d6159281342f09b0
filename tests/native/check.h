// SPDX-License-Identifier: Apache-2.0
// What the checks share: random numbers that are the same everywhere, and results to compare.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace check {

class Random {
 public:
  double unit() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  bool chance(double probability) { return unit() < probability; }

  // Numbers of centre +- spread.
  template <class T>
  std::vector<T> numbers(std::int64_t count, double centre, double spread) {
    std::vector<T> all(static_cast<std::size_t>(count));
    for (T& a : all) a = static_cast<T>(centre + spread * (2 * unit() - 1));
    return all;
  }

 private:
  std::mt19937_64 engine_;
};

// One output of one case. Two instruction sets may differ by `tolerance` times its largest number.
struct Result {
  std::string name;
  double tolerance;
  std::vector<double> values;
};

class Results {
 public:
  // Names of the results to come begin with this.
  void begin(std::string where) { where_ = std::move(where); }

  // A result right to `units` roundings of T.
  template <class T>
  void add(const std::string& name, const std::vector<T>& values, double units) {
    const double tolerance = units * static_cast<double>(std::numeric_limits<T>::epsilon());
    all_.push_back({where_ + name, tolerance, {values.begin(), values.end()}});
  }
  void add_exact(const std::string& name, const std::vector<std::int32_t>& values) {
    all_.push_back({where_ + name, 0, {values.begin(), values.end()}});
  }
  // Must be the same bits, within one instruction set.
  template <class T>
  void expect_same(const std::string& name, const std::vector<T>& found,
                   const std::vector<T>& wanted) {
    if (found != wanted) broken_.push_back(where_ + name);
  }

  const std::vector<Result>& all() const { return all_; }
  const std::vector<std::string>& broken() const { return broken_; }

 private:
  std::string where_;
  std::vector<Result> all_;
  std::vector<std::string> broken_;
};

// Every primitive of the active instruction set.
void check_primitives(Results& results);
// K layers forward and backward, and the shrinkage by itself, on several threads.
void check_recursion(Results& results);

}  // namespace check
