// SPDX-License-Identifier: Apache-2.0
// Random problems, and the recursion and its derivatives in double, written out as they are defined
// and sharing no code with the kernels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fastunroll/problem.h"

namespace harness {

using Array = std::vector<double>;

enum class Axes { layer, atom, sample, full };  // of a step or threshold: (K), (K, n), (K, B) ...

struct Case {
  std::string name;
  bool gram = false;
  int batch = 5, m = 12, n = 20, layers = 3;
  bool per_layer = false;  // a W, a G, a c per layer
  bool tied = false;       // W = A
  bool rule = false;
  Axes step = Axes::layer, threshold = Axes::layer;
  double level = 0.1;  // of the thresholds: sets the density
  bool momentum = false, heavy_ball = false, skip = true;
  bool initial = false, previous = false;
  int bypass = 0;
  fastunroll::Prox prox = fastunroll::Prox::soft;
  bool iterates = false;
};

// The arrays of a problem, row by row; those that it does not have are empty.
struct Data {
  Array dictionary;    // (m, n)
  Array weight;        // (1 or K, m, n)
  Array gram;          // (1 or K, n, n)
  Array linear;        // (1 or K, B, n)
  Array measurements;  // (B, m)
  Array initial, previous;
  Array step, threshold;
  Array rule_weight, rule_bias, momentum, shape;
  std::vector<std::int64_t> bypass;
  double rule_minimum = 0.05, rule_maximum = 0.6;
  Array grad_codes, grad_iterates;
};

// Numbers that float holds exactly.
Data make_data(const Case& c, unsigned seed);

struct Result {
  Array codes, iterates;
  // Gradients, in the shapes of BackwardArguments.
  Array linear, gram, dictionary_t, weight_t, measurements, initial, step, threshold;
  Array rule_weight, rule_bias, momentum, shape;
};

Result reference(const Case& c, const Data& d);

// prox(u; t, shape) and its derivatives with respect to u, t and the shape.
struct Shrunk {
  double value, u, threshold, shape;
};
Shrunk shrink(double u, double threshold, fastunroll::Prox prox, double shape, bool kept);

}  // namespace harness
