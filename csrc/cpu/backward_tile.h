// SPDX-License-Identifier: Apache-2.0
// One tile of the backward pass: gets the traces of its samples from a tape, or by running them
// forward again, then goes back through the layers. What is summed over samples stays here for
// `backward.cpp` to sum in order.
#pragma once

#include <memory>

#include "cpu/late_layers.h"
#include "cpu/tile.h"

namespace fastunroll::cpu {

// How the derivative with respect to one layer parameter (step, threshold) is collected: summed per
// sample, kept per support entry for a sum per atom, or written out where the parameter has both
// axes.
template <class T>
struct ParameterTerms {
  ParameterTerms() = default;
  ParameterTerms(const LayerParameter<T>& parameter, T* out, std::int64_t layers,
                 std::int64_t samples, std::int64_t stride);

  T* out = nullptr;  // null: not asked for
  bool per_atom = false;
  bool per_sample = false;
  Buffer<T> terms;  // (layers, samples, n), aligned with the support of x_{k+1}
};

// Sums over the atoms, (K, B) each; reduced over the samples afterwards where the parameter is
// shared.
struct SampleSums {
  Buffer<double> step;
  Buffer<double> threshold;
  Buffer<double> rule_weight;
  Buffer<double> rule_bias;
  Buffer<double> momentum;
  Buffer<double> prox_shape;
};

template <class T>
class BackwardTile {
 public:
  BackwardTile(const Problem<T>& problem, const BackwardArguments<T>& args, SampleSums& sums,
               std::int64_t capacity);

  // Goes through the stages K - 1, ..., 0, -1: stage k is the objective at x_{k+1} and the layer k.
  void run(std::int64_t first, std::int64_t samples);

  // Rows and columns of a gradient that one task owns: one block of columns, at `target`.
  struct Part {
    std::int64_t matrix = 0;
    std::int64_t first = 0;
    std::int64_t last = 0;
    std::int64_t column = 0;
    T* target = nullptr;
  };
  // Add stage k's share of a part.
  void add_gram(std::int64_t k, const Part& part) const;
  void add_dictionary(std::int64_t k, const Part& part) const;
  void add_weight(std::int64_t k, const Part& part) const;
  // Add stage k's terms to sums per atom (null: not asked for).
  void add_atom_terms(std::int64_t k, double* step, double* threshold) const;

 private:
  void accumulate(const Part& part, const TransposedLists<T>& entries, const RowStore<T>& rows,
                  std::int64_t slot) const;
  void through_prox(std::int64_t k);
  void through_slopes(std::int64_t k, std::int64_t s, T* grad);
  T threshold_sum(std::int32_t count, const T* x, const T* grad_u, const std::uint8_t* kept) const;
  template <class Term>
  void keep_terms(const ParameterTerms<T>& parameter, std::int64_t k, std::int64_t s,
                  std::int32_t count, const std::int32_t* index, Term term);
  T through_rule(std::int64_t k, std::int64_t s, double dot);
  void write_linear(std::int64_t k);
  void through_analysis(std::int64_t k, const Lists<T>* wanted);
  void through_gram(std::int64_t k, const Lists<T>& wanted, T* target);
  // The first of the layers that `late_` takes over.
  std::int64_t first_late() const { return late_ == nullptr ? problem_.n_layers : late_->first(); }
  void through_dictionary(std::int64_t k, const Lists<T>& wanted, T* target);
  void through_momentum(std::int64_t k, T* target);
  void add_output_gradients(std::int64_t k);
  void add_objective_gradient(std::int64_t k, T* rows);
  // Lists with the supports of x_k and other values.
  Lists<T> on_support(std::int64_t k, const Buffer<T>& values) const;
  void clear_dots(const Lists<T>& wanted);
  void dots_to_rows(const Lists<T>& wanted, T* rows);
  // Whether the shrinkage has other slopes than 0 and 1.
  bool slopes() const { return problem_.prox >= Prox::smooth; }
  std::int64_t residual_slot(std::int64_t k) const { return problem_.factored() ? k : 0; }
  bool rule() const { return problem_.rule_weight != nullptr; }
  std::int64_t sample_index(std::int64_t k, std::int64_t s) const {
    return k * problem_.batch + tile_.first() + s;
  }

  const Problem<T>& problem_;
  const BackwardArguments<T>& args_;
  SampleSums& sums_;
  const Kernels<T>& kernels_;
  Tile<T> tile_;
  const bool analysis_;                  // v takes W in: the factored form, or c = b W
  const bool wants_weight_;              // dW, by itself or (W = A) as a part of dA
  const bool wants_dictionary_;          // dA of the factored form
  const bool dense_direction_;           // the gradient of v is needed as dense rows
  std::unique_ptr<LateLayers<T>> late_;  // null where these cannot be told apart

  RowStore<T> grad_codes_;  // three slots in turn: gradients of x_{k+1}, x_k, x_{k-1}
  RowStore<T> grad_point_;  // with momentum: gradient of the point p_k, then of y_k
  // Kept per stage, for the sums over the samples:
  RowStore<T> grad_directions_;  // of v_k, where it is needed in dense rows
  RowStore<T> grad_residual_;    // factored form; with c = b W, that of the last stage of -b
  RowStore<T> objective_residual_;
  Buffer<T> grad_u_;          // on the support of x_{k+1}
  Buffer<T> grad_direction_;  // of v_k, on the support of x_{k+1}
  Buffer<T> dots_;
  Buffer<T> slopes_;  // with respect to u, to the threshold (later its terms) and to the shape
  Buffer<T> thresholds_;
  ParameterTerms<T> step_;
  ParameterTerms<T> threshold_;
  TransposedStore<T> points_by_row_;
  TransposedStore<T> directions_by_row_;
  TransposedStore<T> codes_by_row_;
  ListStore<T> all_atoms_;
};

}  // namespace fastunroll::cpu
