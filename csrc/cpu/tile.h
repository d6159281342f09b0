// SPDX-License-Identifier: Apache-2.0
// A tile: a few samples that go through all layers together, with their working memory.
#pragma once

#include <vector>

#include "cpu/buffers.h"
#include "cpu/kernels.h"
#include "cpu/tape.h"
#include "fastunroll/problem.h"

namespace fastunroll::cpu {

// Above this share of non-zeros the dense product, at twice the multiply rate, is the faster one.
constexpr double kDenseShare = 0.5;

// A parameter of one layer and sample: one number, or one per atom where the atom stride is 1.
template <class T>
inline const T* parameter_row(const LayerParameter<T>& p, std::int64_t layer, std::int64_t sample) {
  return p.data + layer * p.layer_stride + sample * p.sample_stride;
}

// out_s += in_s times the matrix, from lists, or from dense rows where the lists are long.
template <class T>
void product(const Kernels<T>& kernels, std::int64_t samples, const Lists<T>& lists,
             const T* dense_rows, std::int64_t dense_stride, const PackedMatrix<T>& matrix,
             std::int64_t layer, T* out, std::int64_t out_stride, std::int32_t* cursor);

template <class T>
class Tile {
 public:
  // With `trace`, every layer's lists, directions and residuals stay until the next run.
  Tile(const Problem<T>& problem, std::int64_t capacity, bool trace);

  // Runs samples first .. first + samples - 1 through all layers.
  void run(std::int64_t first, std::int64_t samples, const ForwardOutputs<T>& out);

  // Puts back from a tape what a run of samples first .. first + samples - 1 would trace, but for
  // the residuals, which `restore_residuals` computes for layers 0 .. layers - 1.
  void restore(std::int64_t first, std::int64_t samples, const Tape& tape);
  void restore_residuals(std::int64_t layers);

  std::int64_t first() const { return first_; }
  std::int64_t samples() const { return samples_; }
  // x_k, k = -1 .. K (without trace: the last three).
  Lists<T> codes(std::int64_t k) const { return codes_.lists(code_slot(k)); }
  // The point at which layer k takes its gradient.
  Lists<T> points(std::int64_t k) const {
    return extrapolates_ ? points_.lists(slot(k)) : codes(k);
  }
  // 1 where support selection kept the entry of x_k unshrunk; null without support selection.
  const std::uint8_t* kept(std::int64_t k, std::int64_t sample) const;
  // v_k in dense rows: of layer k with the step rule, else of the last layer only.
  const RowStore<T>& directions() const { return directions_; }
  // v_k on the support of x_{k+1}, with trace.
  const T* support_direction(std::int64_t k, std::int64_t sample) const {
    return support_direction_row(k, sample);
  }
  const RowStore<T>& residuals() const { return residuals_; }
  // -b in padded rows, in Gram form with c = b W.
  const RowStore<T>& negated() const { return negated_; }
  std::int64_t capacity() const { return capacity_; }
  std::int64_t slot(std::int64_t k) const { return trace_ ? k : 0; }
  std::int64_t direction_slot(std::int64_t k) const {
    return problem_.rule_weight == nullptr ? 0 : slot(k);
  }
  // Norm of the direction and the step of the rule, layer k.
  T norm(std::int64_t k, std::int64_t sample) const { return norms_[k * capacity_ + sample]; }
  const T& rule_step(std::int64_t k, std::int64_t sample) const {
    return rule_steps_[k * capacity_ + sample];
  }
  // r = x A^T - b of the listed codes into padded rows; `dense` are the same codes as rows, or
  // null.
  void residual(const Lists<T>& lists, const T* dense, T* rows, std::int64_t stride);
  std::int32_t* cursor() const { return cursor_.get(); }

  // Layer k's matrix, packed here where every layer has one of its own that is not packed yet;
  // it holds until the next call.
  PackedMatrix<T> gram(std::int64_t k);
  PackedMatrix<T> gram_t(std::int64_t k);
  PackedMatrix<T> weight(std::int64_t k);
  PackedMatrix<T> weight_t(std::int64_t k);
  // Whether the matrices packed so far are finite.
  Status status() const { return status_; }

 private:
  PackedMatrix<T> layer_matrix(const PackedMatrix<T>& packed, const LayerMatrices<T>& layers,
                               bool transposed, std::int64_t k, Status bad);
  std::int64_t code_slot(std::int64_t k) const { return (k + 1) % code_slots_; }
  std::int64_t kept_offset(std::int64_t k, std::int64_t sample) const {
    return (code_slot(k) * capacity_ + sample) * problem_.n_atoms;
  }
  T* support_direction_row(std::int64_t k, std::int64_t sample) const {
    return support_directions_.get() + codes_.offset(code_slot(k + 1)) +
           sample * codes(k + 1).stride;
  }
  void make_room();
  void lay_out_codes(const std::vector<std::int64_t>& longest);
  void start(const ForwardOutputs<T>& out);
  // -b into padded rows.
  void negate_measurements(T* rows, std::int64_t stride) const;
  bool own_linear() const { return !problem_.factored() && problem_.linear == nullptr; }
  void subtract_linear(std::int64_t k, T* rows, std::int64_t stride);
  void layer(std::int64_t k, const ForwardOutputs<T>& out);
  bool goes_one_by_one(std::int64_t k, const ForwardOutputs<T>& out) const;
  void direction(std::int64_t k);
  void shrink(std::int64_t k, Tape* tape);
  void load(const T* source, std::int64_t k, T* rows);
  void write(std::int64_t k, const ForwardOutputs<T>& out);
  void objective(std::int64_t k, const T* residual_rows, std::int64_t stride, T* out);
  void estimate_error(std::int64_t k, std::int64_t s);
  std::int64_t selected(std::int64_t k, std::int64_t s) const;
  void select_support(std::int64_t k, std::int64_t s, const T* threshold, T* x);

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const std::int64_t capacity_;
  const bool trace_;
  const bool extrapolates_;  // the gradient is taken at y, not at x_k
  const bool adapts_;        // threshold, momentum and selection follow the sample
  const std::int64_t code_slots_;
  std::int64_t first_ = 0;
  std::int64_t samples_ = 0;
  std::int64_t begin_ = 0;  // of the samples whose layer is under way
  std::int64_t end_ = 0;

  ListStore<T> codes_;
  ListStore<T> points_;
  Buffer<std::uint8_t> kept_;
  RowStore<T> negated_;  // -b, where c = b W is not given
  RowStore<T> linear_;   // -c, where one W serves all layers
  RowStore<T> directions_;
  Buffer<T> support_directions_;
  RowStore<T> residuals_;
  RowStore<T> objective_residual_;
  RowStore<T> dense_;  // x_k and x_{k-1}, in turn
  RowStore<T> extrapolated_;
  Buffer<T> norms_;
  Buffer<T> rule_steps_;
  Buffer<T> magnitudes_;
  Buffer<T> first_errors_;  // e_0 of adaptive layers
  Buffer<T> errors_;        // e_k
  Buffer<std::int32_t> cursor_;
  Buffer<T> matrix_;
  Status status_ = Status::ok;
  std::vector<TapeRecord> records_;  // of the samples under way, where a tape is wanted
};

}  // namespace fastunroll::cpu
