// SPDX-License-Identifier: Apache-2.0
// How the derivatives with respect to a step or a threshold become its gradient: a parameter has
// an axis over the samples, over the atoms, both or none.
#pragma once

#include "cuda/backward.h"
#include "cuda/reduce.h"

namespace fastunroll::cuda {

// Hands out a workspace; from null, it only counts.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<unsigned char*>(base)) {}

  template <class T>
  T* take(std::int64_t count) {
    T* const piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return piece;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  unsigned char* base_;
  std::size_t bytes_ = 0;
};

// One parameter's gradient, over all layers and `batch` samples.
template <class T>
struct ParameterGradient {
  T* out = nullptr;  // null: not asked for
  bool per_atom = false;
  bool per_sample = false;
  double* sums = nullptr;  // (layers, batch), without an axis over the atoms
  T* terms = nullptr;      // (layers, samples, n) of a chunk, with one over the atoms alone

  ParameterGradient(const LayerParameter<T>& parameter, T* out_, std::int64_t layers,
                    std::int64_t batch, std::int64_t chunk, std::int64_t n, Workspace& workspace)
      : out(parameter.data == nullptr ? nullptr : out_),
        per_atom(parameter.atom_stride != 0),
        per_sample(parameter.sample_stride != 0) {
    if (out == nullptr) return;
    if (!per_atom) sums = workspace.take<double>(layers * batch);
    if (per_atom && !per_sample) terms = workspace.take<T>(layers * chunk * n);
  }

  // Where the derivatives of a chunk of samples, `first` of `batch`, go.
  Terms<T> of_chunk(std::int64_t first, std::int64_t count, std::int64_t batch,
                    std::int64_t n) const {
    if (out == nullptr || !per_atom) return {};
    if (per_sample) return {out + first * n, batch * n};
    return {terms, count * n};
  }

  Error add_chunk(std::int64_t layers, std::int64_t first, std::int64_t count, std::int64_t n,
                  Stream stream) const {
    if (terms == nullptr) return nullptr;
    return sum_columns(terms, layers, count, n, out, first > 0, stream);
  }

  Error finish(std::int64_t layers, std::int64_t batch, Stream stream) const {
    return sum_samples(sums, layers, batch, per_sample, out, stream);
  }

  // (layers, batch) sums to a gradient with or without an axis over the samples.
  static Error sum_samples(const double* sums, std::int64_t layers, std::int64_t batch,
                           bool per_sample, T* out, Stream stream) {
    if (sums == nullptr) return nullptr;
    if (per_sample) return sum_columns(sums, 1, 1, layers * batch, out, false, stream);
    return sum_rows(sums, layers, batch, out, stream);
  }
};

}  // namespace fastunroll::cuda
