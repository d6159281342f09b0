// SPDX-License-Identifier: Apache-2.0
// Plain parameter structs of the unrolled recursion. No torch, no Python, no ownership: every
// pointer belongs to the caller and outlives the call. Strides are in elements, not bytes.
#pragma once

#include <cstdint>

namespace fastunroll {

namespace cpu {
class Tape;
}

enum class Prox : int { soft = 0, nonnegative = 1, hard = 2, smooth = 3, firm = 4, scad = 5 };

// The shape of a firm or SCAD shrinkage lies above this number.
constexpr int least_shape(Prox prox) { return prox == Prox::scad ? 2 : 1; }

enum class Status : int {
  ok = 0,
  bad_step = 1,       // a step that is not finite or not positive
  bad_threshold = 2,  // a threshold that is not finite or is negative
  bad_momentum = 3,   // a momentum that is not finite
  bad_rule = 4,       // a weight or bias of the step rule that is not finite
  out_of_memory = 5,
  bad_shape = 6,   // a shape that is not finite or too small for its shrinkage
  bad_gram = 7,    // a Gram matrix of some layer that is not finite
  bad_weight = 8,  // a weight W of some layer that is not finite
};

// A matrix (rows, cols), or one per layer, in the kernels' layout: blocks of kBlockBytes columns,
// [layer][column block][row][column in block], 64-byte aligned, columns padded with zeros.
template <class T>
struct PackedMatrix {
  const T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t layer_stride = 0;  // 0: the same matrix in every layer
};

// A matrix per layer of any strides; each tile packs the one that it needs.
template <class T>
struct LayerMatrices {
  const T* data = nullptr;
  std::int64_t layer_stride = 0;
  std::int64_t row_stride = 0;
  std::int64_t col_stride = 0;
};

// One number per layer, and per sample or per atom where the stride is not 0.
template <class T>
struct LayerParameter {
  const T* data = nullptr;
  std::int64_t layer_stride = 0;
  std::int64_t sample_stride = 0;
  std::int64_t atom_stride = 0;  // 0 or 1
};

// One layer: y = x_k + momentum_k (x_k - x_{k-1}),  p = heavy_ball ? x_k : y,
//   v = p G - c          (Gram form)   or   v = (p A^T - b) W   (factored form),
//   x_{k+1} = prox((skip ? y : 0) - step_k v; threshold_k, shape_k).
template <class T>
struct Problem {
  std::int64_t batch = 0;           // B
  std::int64_t n_measurements = 0;  // m; 0 where neither b nor A is given
  std::int64_t n_atoms = 0;         // n
  std::int64_t n_layers = 0;        // K

  // What a pass does not read may be null; both Gram matrices are in the factored form.
  PackedMatrix<T> gram;          // G (n, n)
  PackedMatrix<T> gram_t;        // G^T (n, n); backward, Gram form
  PackedMatrix<T> dictionary_t;  // A^T (n, m); factored form and objective
  PackedMatrix<T> weight;        // W (m, n); factored form, and Gram form with c = b W
  PackedMatrix<T> weight_t;      // W^T (n, m); backward, factored form

  // In place of `gram` and `gram_t`, and of `weight` and `weight_t`, whose data are null then.
  LayerMatrices<T> gram_layers;
  LayerMatrices<T> weight_layers;

  const T* linear = nullptr;             // c (1 or K, B, n); Gram form; null: c = b W
  std::int64_t linear_layer_stride = 0;  // 0: the same c in every layer
  const T* measurements = nullptr;       // b (B, m); factored form and objective
  const T* initial = nullptr;            // x_0 (B, n), null: 0
  const T* previous = nullptr;           // x_{-1} (B, n), null: x_0

  LayerParameter<T> step;  // null where the rule gives the step
  LayerParameter<T> threshold;
  const T* rule_weight = nullptr;  // w (K): step = min + (max - min) sigmoid(w ||v|| + c)
  const T* rule_bias = nullptr;    // c (K)
  T rule_minimum = 0;
  T rule_maximum = 0;
  const T* momentum = nullptr;           // (K), null: 0
  const T* prox_shape = nullptr;         // (K) of the firm and the SCAD shrinkage, else null
  const std::int64_t* bypass = nullptr;  // (K) counts of support selection, null: 0

  // Adaptive layers, forward pass only, with numbers per layer: with e_k = ||error_scale v_k||_1 of
  // a sample, its threshold is threshold_k e_k, its momentum momentum_k ||x_k||_0, and the share
  // selection_k log(e_0 / e_k) of its atoms is selected.
  const T* error_scale = nullptr;  // (n), null: layers are not adaptive
  const T* selection = nullptr;    // (K)

  Prox prox = Prox::soft;
  bool skip = true;
  bool heavy_ball = false;
  bool with_objective = false;  // F(x) = 1/2 ||x A^T - b||^2 + objective_weight ||x||_1
  T objective_weight = 0;

  constexpr bool factored() const {
    return gram.data == nullptr && gram_t.data == nullptr && gram_layers.data == nullptr;
  }
  bool gram_per_layer() const { return gram.layer_stride != 0 || gram_layers.data != nullptr; }
  bool weight_per_layer() const {
    return weight.layer_stride != 0 || weight_layers.data != nullptr;
  }
};

template <class T>
struct ForwardOutputs {
  T* codes = nullptr;         // x_K (B, n)
  T* objective = nullptr;     // F(x_k) (K + 1, B), null: not asked for
  T* iterates = nullptr;      // x_k (K + 1, B, n), null: not asked for
  cpu::Tape* tape = nullptr;  // null: nothing is kept for the backward pass
};

// Incoming gradients (null: zero) and outgoing ones (null: not asked for).
template <class T>
struct BackwardArguments {
  // Of the forward pass; null: run it again. Without rule and momentum a tape holds all that the
  // backward pass needs, whatever the form of the forward pass was.
  const cpu::Tape* tape = nullptr;
  const T* grad_codes = nullptr;      // (B, n)
  const T* grad_objective = nullptr;  // (K + 1, B)
  const T* grad_iterates = nullptr;   // (K + 1, B, n)

  T* linear = nullptr;         // dc, shape of c
  T* gram = nullptr;           // dG (1 or K, n, n)
  T* dictionary = nullptr;     // dA (m, n)
  T* weight = nullptr;         // dW (1 or K, m, n)
  T* measurements = nullptr;   // db (B, m)
  T* initial = nullptr;        // dx_0 (B, n)
  T* step = nullptr;           // shape of step
  T* threshold = nullptr;      // shape of threshold
  T* rule_weight = nullptr;    // (K)
  T* rule_bias = nullptr;      // (K)
  T* momentum = nullptr;       // (K)
  T* prox_shape = nullptr;     // (K)
  std::int64_t n_grams = 1;    // leading axis of dG
  std::int64_t n_weights = 1;  // leading axis of dW; 0: W = A, so dW adds to dA
};

}  // namespace fastunroll
