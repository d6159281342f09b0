// SPDX-License-Identifier: Apache-2.0
#include "cpu/backward_tile.h"

#include <cmath>

#include "math/prox.h"

namespace fastunroll::cpu {

template <class T>
ParameterTerms<T>::ParameterTerms(const LayerParameter<T>& parameter, T* out_, std::int64_t layers,
                                  std::int64_t samples, std::int64_t stride)
    : out(parameter.data == nullptr ? nullptr : out_),
      per_atom(parameter.atom_stride != 0),
      per_sample(parameter.sample_stride != 0) {
  if (out != nullptr && per_atom && !per_sample)
    terms = Buffer<T>(layers * samples * stride, Fill::none);
}

template <class T>
BackwardTile<T>::BackwardTile(const Problem<T>& problem, const BackwardArguments<T>& args,
                              SampleSums& sums, std::int64_t capacity)
    : problem_(problem),
      args_(args),
      sums_(sums),
      kernels_(active<T>()),
      tile_(problem, capacity, true),
      analysis_(problem.factored() || problem.linear == nullptr),
      wants_weight_(analysis_ && (args.weight != nullptr ||
                                  (args.n_weights == 0 && args.dictionary != nullptr))),
      wants_dictionary_(problem.factored() && args.dictionary != nullptr),
      dense_direction_(problem.rule_weight != nullptr || args.gram != nullptr ||
                       problem.prox == Prox::smooth) {
  const std::int64_t n = problem.n_atoms;
  const std::int64_t m = problem.n_measurements;
  const std::int64_t stages = problem.n_layers;
  const bool factored = problem.factored();
  all_atoms_ = ListStore<T>(1, capacity, n);
  const Lists<T> all = all_atoms_.lists(0);
  for (std::int64_t s = 0; s < capacity; ++s) {
    all.end(s, static_cast<std::int32_t>(n));
    for (std::int64_t i = 0; i < n; ++i)
      all.index[s * all.stride + i] = static_cast<std::int32_t>(i);
  }
  grad_codes_ = RowStore<T>(3, capacity, n);
  if (problem.momentum != nullptr) grad_point_ = RowStore<T>(1, capacity, n);
  if (factored || (analysis_ && args.measurements != nullptr)) {
    grad_residual_ = RowStore<T>(factored ? 0 : 1, capacity, m, Fill::none);
  }
  const bool objective = args.grad_objective != nullptr;
  if (objective) {
    objective_residual_ = RowStore<T>(stages + 1, capacity, m);
  }
  if (dense_direction_) grad_directions_ = RowStore<T>(stages, capacity, n, Fill::none);
  grad_u_ = Buffer<T>(capacity * all.stride, Fill::none);
  grad_direction_ = Buffer<T>(capacity * all.stride, Fill::none);
  dots_ = Buffer<T>(capacity * all.stride, Fill::none);
  if (slopes()) {
    slopes_ = Buffer<T>(3 * all.stride, Fill::none);
    thresholds_ = Buffer<T>(all.stride, Fill::none);
  }
  step_ = ParameterTerms<T>(problem.step, args.step, stages, capacity, n);
  threshold_ = ParameterTerms<T>(problem.threshold, args.threshold, stages, capacity, n);
  points_by_row_ = TransposedStore<T>(args.gram != nullptr ? stages : 0, capacity, n);
  directions_by_row_ = TransposedStore<T>(wants_weight_ && !factored ? stages : 0, capacity, n);
  if (objective && args.dictionary != nullptr) {
    codes_by_row_ = TransposedStore<T>(stages + 1, capacity, n);
  }
  if (args.tape != nullptr && args.n_weights == 0 && wants_dictionary_ && !objective) {
    late_ = std::make_unique<LateLayers<T>>(problem, capacity);
  }
}

template <class T>
Lists<T> BackwardTile<T>::on_support(std::int64_t k, const Buffer<T>& values) const {
  Lists<T> lists = tile_.codes(k);
  lists.value = values.get();
  return lists;
}

template <class T>
void BackwardTile<T>::run(std::int64_t first, std::int64_t samples) {
  const std::int64_t n = problem_.n_atoms;
  const std::int64_t layers = problem_.n_layers;
  if (args_.tape == nullptr) {
    tile_.run(first, samples, {});
  } else {
    tile_.restore(first, samples, *args_.tape);
    if (late_ != nullptr) late_->start(tile_);
    if (problem_.factored()) tile_.restore_residuals(first_late());
  }
  if (problem_.factored()) {
    grad_residual_.reserve(first_late());
    if (wants_dictionary_) points_by_row_.reserve(first_late());
    if (wants_weight_) directions_by_row_.reserve(first_late());
  }
  for (std::int64_t slot = 0; slot < 3; ++slot) {
    std::fill(grad_codes_.rows(slot), grad_codes_.rows(slot) + samples * grad_codes_.stride(),
              T(0));
  }
  if (args_.grad_codes != nullptr) {
    for (std::int64_t s = 0; s < samples; ++s) {
      const T* row = args_.grad_codes + (first + s) * n;
      std::copy(row, row + n, grad_codes_.row(layers % 3, s));
    }
  }
  for (std::int64_t k = layers - 1; k >= 0; --k) {
    add_output_gradients(k + 1);
    through_prox(k);
    write_linear(k);
    const bool momentum = problem_.momentum != nullptr;
    T* target = momentum ? grad_point_.rows(0) : grad_codes_.rows(k % 3);
    const bool every_atom = momentum || (k == 0 && args_.initial != nullptr);
    const Lists<T> wanted = every_atom ? all_atoms_.lists(0) : tile_.codes(k);
    if (!problem_.factored()) {
      through_gram(k, wanted, target);
    } else if (k >= first_late()) {
      late_->through(tile_, k, on_support(k + 1, grad_direction_), target, grad_codes_.stride());
      if (k == first_late()) late_->finish(tile_, args_.measurements);
    } else {
      through_dictionary(k, wanted, target);
    }
    if (momentum) {
      through_momentum(k, target);
    } else if (problem_.skip) {
      const Lists<T> grads = on_support(k + 1, grad_u_);
      for (std::int64_t s = 0; s < samples; ++s) {
        T* row = target + s * grad_codes_.stride();
        for (std::int32_t p = 0; p < grads.count[s]; ++p) {
          row[grads.index[s * grads.stride + p]] += grads.value[s * grads.stride + p];
        }
      }
    }
  }
  add_output_gradients(0);
  if (args_.initial == nullptr) return;
  for (std::int64_t s = 0; s < samples; ++s) {
    const T* row = grad_codes_.row(0, s);
    std::copy(row, row + n, args_.initial + (first + s) * n);
  }
}

// Gradients that reach x_k from outside the recursion.
template <class T>
void BackwardTile<T>::add_output_gradients(std::int64_t k) {
  T* rows = grad_codes_.rows(k % 3);
  if (args_.grad_iterates != nullptr) {
    for (std::int64_t s = 0; s < tile_.samples(); ++s) {
      const T* grad = args_.grad_iterates + sample_index(k, s) * problem_.n_atoms;
      T* row = rows + s * grad_codes_.stride();
      for (std::int64_t i = 0; i < problem_.n_atoms; ++i) row[i] += grad[i];
    }
  }
  if (args_.grad_objective != nullptr) add_objective_gradient(k, rows);
}

// F(x) = 1/2 ||r||^2 + lambda ||x||_1 with r = x A^T - b: dF/dx = r A + lambda sign(x).
template <class T>
void BackwardTile<T>::add_objective_gradient(std::int64_t k, T* rows) {
  const T* grad = args_.grad_objective + sample_index(k, 0);
  T* residual = objective_residual_.rows(k);
  const std::int64_t stride = objective_residual_.stride();
  const Lists<T> codes = tile_.codes(k);
  tile_.residual(codes, nullptr, residual, stride);
  const bool every_atom = k == 0 && args_.initial != nullptr;
  const Lists<T> wanted = every_atom ? all_atoms_.lists(0) : codes;
  clear_dots(wanted);
  kernels_.row_dots(tile_.samples(), wanted, problem_.dictionary_t, 0, residual, stride,
                    dots_.get(), tile_.cursor());
  for (std::int64_t s = 0; s < tile_.samples(); ++s) {
    T* row = rows + s * grad_codes_.stride();
    for (std::int32_t p = 0; p < wanted.count[s]; ++p) {
      row[wanted.index[s * wanted.stride + p]] += grad[s] * dots_[s * wanted.stride + p];
    }
    for (std::int32_t p = 0; p < codes.count[s]; ++p) {
      const T x = codes.value[s * codes.stride + p];
      if (x == T(0)) continue;
      row[codes.index[s * codes.stride + p]] +=
          grad[s] * std::copysign(problem_.objective_weight, x);
    }
    if (args_.measurements != nullptr) {
      T* target = args_.measurements + (tile_.first() + s) * problem_.n_measurements;
      for (std::int64_t j = 0; j < problem_.n_measurements; ++j) {
        target[j] -= grad[s] * residual[s * stride + j];
      }
    }
  }
  if (args_.dictionary != nullptr) {
    codes_by_row_.build(k, tile_.samples(), codes, [grad](std::int64_t s) { return grad[s]; });
  }
}

template <class T>
void BackwardTile<T>::write_linear(std::int64_t k) {
  if (args_.linear == nullptr) return;
  const std::int64_t n = problem_.n_atoms;
  const Lists<T> grads = on_support(k + 1, grad_direction_);
  for (std::int64_t s = 0; s < tile_.samples(); ++s) {
    T* row = args_.linear + k * problem_.linear_layer_stride + (tile_.first() + s) * n;
    if (rule()) {
      const T* dense = grad_directions_.row(k, s);
      for (std::int64_t i = 0; i < n; ++i) row[i] -= dense[i];
    } else {
      for (std::int32_t p = 0; p < grads.count[s]; ++p) {
        row[grads.index[s * grads.stride + p]] -= grads.value[s * grads.stride + p];
      }
    }
  }
}

template <class T>
void BackwardTile<T>::clear_dots(const Lists<T>& wanted) {
  for (std::int64_t s = 0; s < tile_.samples(); ++s) {
    std::fill_n(dots_.get() + s * wanted.stride, wanted.count[s], T(0));
  }
}

template <class T>
void BackwardTile<T>::dots_to_rows(const Lists<T>& wanted, T* rows) {
  for (std::int64_t s = 0; s < tile_.samples(); ++s) {
    T* row = rows + s * grad_codes_.stride();
    for (std::int32_t p = 0; p < wanted.count[s]; ++p) {
      row[wanted.index[s * wanted.stride + p]] = dots_[s * wanted.stride + p];
    }
  }
}

// v = p G - c: the gradient of p is (gradient of v) G^T, needed for the `wanted` atoms.
template <class T>
void BackwardTile<T>::through_gram(std::int64_t k, const Lists<T>& wanted, T* target) {
  if (args_.gram != nullptr) {
    points_by_row_.build(k, tile_.samples(), tile_.points(k), [](std::int64_t) { return T(1); });
  }
  if (wants_weight_ || (analysis_ && args_.measurements != nullptr)) through_analysis(k, nullptr);
  const bool needed = k > 0 || args_.initial != nullptr || problem_.momentum != nullptr;
  if (!needed) return;
  std::fill(target, target + tile_.samples() * grad_codes_.stride(), T(0));
  if (rule()) {
    clear_dots(wanted);
    kernels_.row_dots(tile_.samples(), wanted, tile_.gram(k), 0, grad_directions_.rows(k),
                      grad_directions_.stride(), dots_.get(), tile_.cursor());
    dots_to_rows(wanted, target);
  } else {
    product(kernels_, tile_.samples(), on_support(k + 1, grad_direction_),
            dense_direction_ ? grad_directions_.rows(k) : nullptr, grad_directions_.stride(),
            tile_.gram_t(k), 0, target, grad_codes_.stride(), tile_.cursor());
  }
}

// v = r W, or v = p G - b W: the gradient of r, or of -b, is (gradient of v) W^T. In the factored
// form, r = p A^T - b, that of p is (gradient of r) A, and goes to `dots_` for the `wanted` atoms.
template <class T>
void BackwardTile<T>::through_analysis(std::int64_t k, const Lists<T>* wanted) {
  const std::int64_t samples = tile_.samples();
  Lists<T> grads = on_support(k + 1, grad_direction_);
  if (rule() && wants_weight_) {
    grads = all_atoms_.lists(0);
    for (std::int64_t s = 0; s < samples; ++s) {
      const T* row = grad_directions_.row(k, s);
      std::copy(row, row + problem_.n_atoms, grads.value + s * grads.stride);
    }
  }
  if (wants_weight_) {
    directions_by_row_.build(k, samples, grads, [](std::int64_t) { return T(1); });
  }
  if (!problem_.factored() && args_.measurements == nullptr) return;
  T* rows = grad_residual_.rows(residual_slot(k));
  const std::int64_t stride = grad_residual_.stride();
  std::fill(rows, rows + samples * stride, T(0));
  if (wanted != nullptr) clear_dots(*wanted);
  const T* dense = dense_direction_ ? grad_directions_.rows(k) : nullptr;
  const PackedMatrix<T> weight_t = tile_.weight_t(k);
  // Block by block of columns: where W = A, the second product finds it in the cache.
  const std::int64_t m = problem_.n_measurements;
  for (std::int64_t column = 0; column < m; column += block_columns<T>()) {
    const std::int64_t b = column / block_columns<T>();
    const PackedMatrix<T> block = column_block(weight_t, b);
    if (rule()) {
      kernels_.dense_product(samples, dense, grad_directions_.stride(), block, 0, rows + column,
                             stride);
    } else {
      product(kernels_, samples, grads, dense, grad_directions_.stride(), block, 0, rows + column,
              stride, tile_.cursor());
    }
    if (wanted == nullptr) continue;
    kernels_.row_dots(samples, *wanted, column_block(problem_.dictionary_t, b), 0, rows + column,
                      stride, dots_.get(), tile_.cursor());
  }
  if (args_.measurements == nullptr) return;
  for (std::int64_t s = 0; s < samples; ++s) {
    T* grad = args_.measurements + (tile_.first() + s) * m;
    for (std::int64_t j = 0; j < m; ++j) grad[j] -= rows[s * stride + j];
  }
}

template <class T>
void BackwardTile<T>::through_dictionary(std::int64_t k, const Lists<T>& wanted, T* target) {
  through_analysis(k, &wanted);
  if (wants_dictionary_) {
    points_by_row_.build(k, tile_.samples(), tile_.points(k), [](std::int64_t) { return T(1); });
  }
  dots_to_rows(wanted, target);
}

// y = x_k + beta (x_k - x_{k-1}); `target` holds the gradient of the point p, and becomes y's.
template <class T>
void BackwardTile<T>::through_momentum(std::int64_t k, T* target) {
  const std::int64_t n = problem_.n_atoms;
  const T beta = problem_.momentum[k];
  const Lists<T> grads = on_support(k + 1, grad_u_);
  const Lists<T> now = tile_.codes(k);
  const Lists<T> before = tile_.codes(k - 1);
  for (std::int64_t s = 0; s < tile_.samples(); ++s) {
    T* grad_y = target + s * grad_codes_.stride();
    T* grad_now = grad_codes_.row(k % 3, s);
    T* grad_before = grad_codes_.row((k + 2) % 3, s);
    if (problem_.heavy_ball) {
      for (std::int64_t i = 0; i < n; ++i) {
        grad_now[i] += grad_y[i];
        grad_y[i] = T(0);
      }
    }
    if (problem_.skip) {
      for (std::int32_t p = 0; p < grads.count[s]; ++p) {
        grad_y[grads.index[s * grads.stride + p]] += grads.value[s * grads.stride + p];
      }
    }
    double dot = 0;
    for (std::int32_t p = 0; p < now.count[s]; ++p) {
      const std::int64_t at = s * now.stride + p;
      dot += static_cast<double>(grad_y[now.index[at]] * now.value[at]);
    }
    for (std::int32_t p = 0; p < before.count[s]; ++p) {
      const std::int64_t at = s * before.stride + p;
      dot -= static_cast<double>(grad_y[before.index[at]] * before.value[at]);
    }
    if (sums_.momentum.get() != nullptr) sums_.momentum[sample_index(k, s)] = dot;
    // x_{-1} is x_0 itself where none was given, so the two parts cancel there.
    const bool same = k == 0 && problem_.previous == nullptr;
    for (std::int64_t i = 0; i < n; ++i) {
      grad_now[i] += same ? grad_y[i] : (T(1) + beta) * grad_y[i];
      grad_before[i] = -beta * grad_y[i];
    }
  }
}

template <class T>
void BackwardTile<T>::accumulate(const Part& part, const TransposedLists<T>& entries,
                                 const RowStore<T>& rows, std::int64_t slot) const {
  kernels_.row_accumulate(part.first, part.last, entries, rows.rows(slot) + part.column,
                          rows.stride(), part.target);
}

template <class T>
void BackwardTile<T>::add_gram(std::int64_t k, const Part& part) const {
  if (k < 0 || (args_.n_grams > 1 && k != part.matrix)) return;
  accumulate(part, points_by_row_.get(k), grad_directions_, k);
}

template <class T>
void BackwardTile<T>::add_dictionary(std::int64_t k, const Part& part) const {
  if (args_.grad_objective != nullptr) {
    accumulate(part, codes_by_row_.get(k + 1), objective_residual_, k + 1);
  }
  if (k < 0) return;
  if (k == first_late()) late_->add(tile_, part.first, part.last, part.column, part.target);
  if (k >= first_late()) return;
  if (wants_dictionary_) accumulate(part, points_by_row_.get(k), grad_residual_, k);
  if (args_.n_weights == 0 && wants_weight_) add_weight(k, part);
}

template <class T>
void BackwardTile<T>::add_weight(std::int64_t k, const Part& part) const {
  if (k < 0 || (args_.n_weights > 1 && k != part.matrix)) return;
  const bool factored = problem_.factored();
  accumulate(part, directions_by_row_.get(k), factored ? tile_.residuals() : tile_.negated(),
             factored ? k : 0);
}

template <class T>
void BackwardTile<T>::add_atom_terms(std::int64_t k, double* step, double* threshold) const {
  const Lists<T> codes = tile_.codes(k + 1);
  for (std::int64_t s = 0; s < tile_.samples(); ++s) {
    const std::int64_t term_row = (k * tile_.capacity() + s) * problem_.n_atoms;
    for (std::int32_t p = 0; p < codes.count[s]; ++p) {
      const std::int32_t i = codes.index[s * codes.stride + p];
      if (step != nullptr) step[i] += static_cast<double>(step_.terms[term_row + p]);
      if (threshold != nullptr) threshold[i] += static_cast<double>(threshold_.terms[term_row + p]);
    }
  }
}

template class BackwardTile<float>;
template class BackwardTile<double>;

}  // namespace fastunroll::cpu
