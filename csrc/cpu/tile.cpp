// SPDX-License-Identifier: Apache-2.0
#include "cpu/tile.h"

#include <cmath>
#include <numeric>

#include "cpu/unrolled.h"
#include "math/prox.h"

namespace fastunroll::cpu {
namespace {

// Layers that a sample goes through alone before the lists are looked at again.
constexpr std::int64_t kRunLayers = 16;

}  // namespace

template <class T>
void product(const Kernels<T>& kernels, std::int64_t samples, const Lists<T>& lists,
             const T* dense_rows, std::int64_t dense_stride, const PackedMatrix<T>& matrix,
             std::int64_t layer, T* out, std::int64_t out_stride, std::int32_t* cursor) {
  std::int64_t entries = 0;
  for (std::int64_t s = 0; s < samples; ++s) entries += lists.count[s];
  const double share = static_cast<double>(entries) / static_cast<double>(samples * matrix.rows);
  if (dense_rows != nullptr && share > kDenseShare) {
    kernels.dense_product(samples, dense_rows, dense_stride, matrix, layer, out, out_stride);
  } else if (entries > 0) {
    kernels.sparse_product(samples, lists, matrix, layer, out, out_stride, cursor);
  }
}

template <class T>
Tile<T>::Tile(const Problem<T>& problem, std::int64_t capacity, bool trace)
    : problem_(problem),
      kernels_(active<T>()),
      capacity_(capacity),
      trace_(trace),
      extrapolates_(problem.momentum != nullptr && !problem.heavy_ball),
      adapts_(problem.error_scale != nullptr),
      code_slots_(trace ? problem.n_layers + 2 : 3),
      codes_(capacity) {
  const std::int64_t n = problem.n_atoms;
  const std::int64_t m = problem.n_measurements;
  const std::int64_t slots = trace ? problem.n_layers : 1;
  directions_ = RowStore<T>(problem.rule_weight == nullptr ? 1 : slots, capacity, n);
  if (own_linear()) {
    negated_ = RowStore<T>(1, capacity, m);
    if (!problem.weight_per_layer()) linear_ = RowStore<T>(1, capacity, n);
  }
  if (problem.factored()) residuals_ = RowStore<T>(0, capacity, m);
  if (problem.with_objective) objective_residual_ = RowStore<T>(1, capacity, m);
  dense_ = RowStore<T>(2, capacity, n);
  if (problem.momentum != nullptr) extrapolated_ = RowStore<T>(1, capacity, n);
  if (problem.momentum != nullptr) points_ = ListStore<T>(slots, capacity, n);
  if (problem.bypass != nullptr || adapts_) {
    kept_ = Buffer<std::uint8_t>(code_slots_ * capacity * n);
    magnitudes_ = Buffer<T>(n);
  }
  if (adapts_) {
    first_errors_ = Buffer<T>(capacity);
    errors_ = Buffer<T>(capacity);
  }
  if (problem.rule_weight != nullptr) {
    norms_ = Buffer<T>(problem.n_layers * capacity);
    rule_steps_ = Buffer<T>(problem.n_layers * capacity);
  }
  if (!trace) make_room();
  cursor_ = Buffer<std::int32_t>(capacity);
  std::int64_t matrix = 0;
  if (problem.gram_layers.data != nullptr) matrix = n * padded<T>(n);
  if (problem.weight_layers.data != nullptr) {
    matrix = std::max({matrix, m * padded<T>(n), n * padded<T>(m)});
  }
  matrix_ = Buffer<T>(matrix, Fill::none);
  records_.resize(static_cast<std::size_t>(capacity));
}

template <class T>
PackedMatrix<T> Tile<T>::layer_matrix(const PackedMatrix<T>& packed, const LayerMatrices<T>& layers,
                                      bool transposed, std::int64_t k, Status bad) {
  if (layers.data == nullptr) {
    return {packed.data + k * packed.layer_stride, packed.rows, packed.cols, 0};
  }
  const std::int64_t rows = transposed ? layers.col_stride : layers.row_stride;
  const std::int64_t cols = transposed ? layers.row_stride : layers.col_stride;
  const T* source = layers.data + k * layers.layer_stride;
  if (!pack(source, 1, packed.rows, packed.cols, 0, rows, cols, matrix_.get())) status_ = bad;
  return {matrix_.get(), packed.rows, packed.cols, 0};
}

template <class T>
PackedMatrix<T> Tile<T>::gram(std::int64_t k) {
  return layer_matrix(problem_.gram, problem_.gram_layers, false, k, Status::bad_gram);
}

template <class T>
PackedMatrix<T> Tile<T>::gram_t(std::int64_t k) {
  return layer_matrix(problem_.gram_t, problem_.gram_layers, true, k, Status::bad_gram);
}

template <class T>
PackedMatrix<T> Tile<T>::weight(std::int64_t k) {
  return layer_matrix(problem_.weight, problem_.weight_layers, false, k, Status::bad_weight);
}

template <class T>
PackedMatrix<T> Tile<T>::weight_t(std::int64_t k) {
  return layer_matrix(problem_.weight_t, problem_.weight_layers, true, k, Status::bad_weight);
}

template <class T>
const std::uint8_t* Tile<T>::kept(std::int64_t k, std::int64_t sample) const {
  if (problem_.bypass == nullptr) return nullptr;
  return kept_.get() + kept_offset(k, sample);
}

template <class T>
void Tile<T>::run(std::int64_t first, std::int64_t samples, const ForwardOutputs<T>& out) {
  first_ = first;
  samples_ = samples;
  begin_ = 0;
  end_ = samples;
  if (trace_) make_room();
  start(out);
  if (own_linear()) negate_measurements(negated_.rows(0), negated_.stride());
  for (std::int64_t k = 0; k < problem_.n_layers;) {
    const bool one_by_one = goes_one_by_one(k, out);
    const std::int64_t last = one_by_one ? std::min(k + kRunLayers, problem_.n_layers) : k + 1;
    const std::int64_t width = one_by_one ? 1 : samples_;
    for (begin_ = 0; begin_ < samples_; begin_ = end_) {
      end_ = begin_ + width;
      for (std::int64_t i = k; i < last; ++i) layer(i, out);
    }
    k = last;
  }
  if (out.codes == nullptr) return;
  for (std::int64_t s = 0; s < samples_; ++s) {
    const T* row = dense_.row(problem_.n_layers % 2, s);
    std::copy(row, row + problem_.n_atoms, out.codes + (first_ + s) * problem_.n_atoms);
  }
}

// Where G is larger than the cache but not the rows that a sample's short list takes, each sample
// goes through some layers alone and finds its rows again. They are few enough for samples to share
// hardly any.
template <class T>
bool Tile<T>::goes_one_by_one(std::int64_t k, const ForwardOutputs<T>& out) const {
  const bool untied = problem_.gram_per_layer() || problem_.weight_per_layer();
  if (k == 0 || problem_.factored() || untied || out.objective != nullptr ||
      !exceeds_cache(problem_.gram)) {
    return false;
  }
  const Lists<T> lists = codes(k);
  const std::int64_t entries =
      std::accumulate(lists.count, lists.count + samples_, std::int64_t{0});
  const std::int64_t row_bytes = problem_.n_atoms * static_cast<std::int64_t>(sizeof(T));
  return entries * row_bytes <= samples_ * kCacheBytes / 4;
}

// One layer of samples begin_ .. end_ - 1.
template <class T>
void Tile<T>::layer(std::int64_t k, const ForwardOutputs<T>& out) {
  direction(k);
  const bool residual_of_codes = problem_.factored() && !extrapolates_;
  if (out.objective != nullptr && residual_of_codes) {
    objective(k, residuals_.rows(slot(k)), residuals_.stride(), out.objective);
  }
  shrink(k, out.tape);
  write(k + 1, out);
  if (out.objective != nullptr && (!residual_of_codes || k + 1 == problem_.n_layers)) {
    residual(codes(k + 1), dense_.rows((k + 1) % 2), objective_residual_.rows(0),
             objective_residual_.stride());
    objective(k + 1, objective_residual_.rows(0), objective_residual_.stride(), out.objective);
  }
}

// Dense rows and lists of x_0 and x_{-1}.
template <class T>
void Tile<T>::start(const ForwardOutputs<T>& out) {
  load(problem_.initial, 0, dense_.rows(0));
  load(problem_.previous == nullptr ? problem_.initial : problem_.previous, -1, dense_.rows(1));
  write(0, out);
  const bool residual_of_codes = problem_.factored() && !extrapolates_;
  if (out.objective != nullptr && !residual_of_codes) {
    residual(codes(0), dense_.rows(0), objective_residual_.rows(0), objective_residual_.stride());
    objective(0, objective_residual_.rows(0), objective_residual_.stride(), out.objective);
  }
}

template <class T>
void Tile<T>::load(const T* source, std::int64_t k, T* rows) {
  const Lists<T> lists = codes(k);
  const std::int64_t n = problem_.n_atoms;
  for (std::int64_t s = 0; s < samples_; ++s) {
    T* row = rows + s * dense_.stride();
    std::fill(row, row + dense_.stride(), T(0));
    std::int32_t count = 0;
    if (source != nullptr) {
      const T* from = source + (first_ + s) * n;
      for (std::int64_t i = 0; i < n; ++i) {
        if (from[i] == T(0)) continue;
        row[i] = from[i];
        lists.index[s * lists.stride + count] = static_cast<std::int32_t>(i);
        lists.value[s * lists.stride + count] = from[i];
        ++count;
      }
    }
    lists.end(s, count);
  }
}

template <class T>
void Tile<T>::residual(const Lists<T>& lists, const T* dense, T* rows, std::int64_t stride) {
  negate_measurements(rows, stride);
  product(kernels_, samples_, lists, dense, dense_.stride(), problem_.dictionary_t, 0, rows, stride,
          cursor_.get());
}

template <class T>
void Tile<T>::negate_measurements(T* rows, std::int64_t stride) const {
  const std::int64_t m = problem_.n_measurements;
  for (std::int64_t s = 0; s < samples_; ++s) {
    kernels_.negate(m, problem_.measurements + (first_ + s) * m, stride, rows + s * stride);
  }
}

// -c of layer k into padded rows.
template <class T>
void Tile<T>::subtract_linear(std::int64_t k, T* rows, std::int64_t stride) {
  if (!own_linear()) {
    const T* linear = problem_.linear + k * problem_.linear_layer_stride;
    const std::int64_t n = problem_.n_atoms;
    for (std::int64_t s = begin_; s < end_; ++s) {
      kernels_.negate(n, linear + (first_ + s) * n, stride, rows + s * stride);
    }
    return;
  }
  const bool shared = !problem_.weight_per_layer();
  if (!shared || k == 0) {
    T* target = shared ? linear_.rows(0) : rows;
    std::fill(target, target + samples_ * stride, T(0));
    kernels_.dense_product(samples_, negated_.rows(0), negated_.stride(), weight(k), 0, target,
                           stride);
  }
  if (shared) std::copy(linear_.row(0, begin_), linear_.row(0, end_), rows + begin_ * stride);
}

// v_k, from x_k or from its extrapolation y.
template <class T>
void Tile<T>::direction(std::int64_t k) {
  const std::int64_t n = problem_.n_atoms;
  const T* dense = dense_.rows(k % 2);
  if (problem_.momentum != nullptr) {
    const Lists<T> lists = points_.lists(slot(k));
    for (std::int64_t s = begin_; s < end_; ++s) {
      const T factor = adapts_ ? static_cast<T>(codes(k).count[s]) : T(1);
      lists.end(
          s, kernels_.extrapolate(n, dense_.row(k % 2, s), dense_.row((k + 1) % 2, s),
                                  factor * problem_.momentum[k], extrapolated_.row(0, s),
                                  lists.index + s * lists.stride, lists.value + s * lists.stride));
    }
    if (extrapolates_) dense = extrapolated_.rows(0);
  }
  T* rows = directions_.rows(direction_slot(k));
  const std::int64_t stride = directions_.stride();
  if (!problem_.factored()) {
    subtract_linear(k, rows, stride);
    product(kernels_, end_ - begin_, points(k).from(begin_), dense + begin_ * dense_.stride(),
            dense_.stride(), gram(k), 0, rows + begin_ * stride, stride, cursor_.get());
  } else {
    residual(points(k), dense, residuals_.rows(slot(k)), residuals_.stride());
    std::fill(rows, rows + samples_ * stride, T(0));
    kernels_.dense_product(samples_, residuals_.rows(slot(k)), residuals_.stride(), weight(k), 0,
                           rows, stride);
  }
  for (std::int64_t s = begin_; adapts_ && s < end_; ++s) estimate_error(k, s);
  if (problem_.rule_weight == nullptr) return;
  for (std::int64_t s = begin_; s < end_; ++s) {
    const T norm = std::sqrt(kernels_.sum_of_squares(padded<T>(n), rows + s * stride));
    const T gate = math::sigmoid(problem_.rule_weight[k] * norm + problem_.rule_bias[k]);
    norms_[k * capacity_ + s] = norm;
    rule_steps_[k * capacity_ + s] =
        problem_.rule_minimum + (problem_.rule_maximum - problem_.rule_minimum) * gate;
  }
}

template <class T>
void Tile<T>::estimate_error(std::int64_t k, std::int64_t s) {
  const T* v = directions_.row(direction_slot(k), s);
  T* scaled = magnitudes_.get();
  for (std::int64_t i = 0; i < problem_.n_atoms; ++i) scaled[i] = problem_.error_scale[i] * v[i];
  errors_[s] = kernels_.dot(problem_.n_atoms, scaled, scaled, true);
  if (k == 0) first_errors_[s] = errors_[s];
}

template <class T>
void Tile<T>::restore(std::int64_t first, std::int64_t samples, const Tape& tape) {
  first_ = first;
  samples_ = samples;
  std::vector<std::int64_t> longest(static_cast<std::size_t>(code_slots_));
  if (problem_.initial != nullptr) longest[1] = problem_.n_atoms;
  for (std::int64_t k = 0; k < problem_.n_layers; ++k) {
    std::int64_t& entries = longest[static_cast<std::size_t>(code_slot(k + 1))];
    for (std::int64_t s = 0; s < samples; ++s) {
      entries = std::max<std::int64_t>(entries, tape.get(first + s).count(k));
    }
  }
  lay_out_codes(longest);
  load(problem_.initial, 0, dense_.rows(0));
  const bool selects = problem_.bypass != nullptr;
  for (std::int64_t s = 0; s < samples; ++s) {
    const TapeRecord& record = tape.get(first + s);
    std::size_t offset = 0;
    for (std::int64_t k = 0; k < problem_.n_layers; ++k) {
      const Lists<T> lists = codes(k + 1);
      offset = record.read(k, offset, lists.index + s * lists.stride,
                           lists.value + s * lists.stride, support_direction_row(k, s),
                           selects ? kept_.get() + kept_offset(k + 1, s) : nullptr);
      lists.end(s, record.count(k));
    }
  }
  if (own_linear()) negate_measurements(negated_.rows(0), negated_.stride());
}

template <class T>
void Tile<T>::restore_residuals(std::int64_t layers) {
  residuals_.reserve(layers);
  const std::int64_t stride = residuals_.stride();
  for (std::int64_t k = 0; k < layers; ++k) negate_measurements(residuals_.rows(k), stride);
  // A block of A stays in the cache for all layers.
  const std::int64_t width = block_columns<T>();
  for (std::int64_t column = 0; column < problem_.n_measurements; column += width) {
    const PackedMatrix<T> block = column_block(problem_.dictionary_t, column / width);
    for (std::int64_t k = 0; k < layers; ++k) {
      product<T>(kernels_, samples_, codes(k), nullptr, 0, block, 0, residuals_.rows(k) + column,
                 stride, cursor_.get());
    }
  }
}

// For all that a run can leave.
template <class T>
void Tile<T>::make_room() {
  lay_out_codes(std::vector<std::int64_t>(static_cast<std::size_t>(code_slots_), problem_.n_atoms));
  residuals_.reserve(trace_ ? problem_.n_layers : 1);
}

template <class T>
void Tile<T>::lay_out_codes(const std::vector<std::int64_t>& longest) {
  codes_.lay_out(longest);
  if (trace_) support_directions_.reserve(codes_.size());
}

template <class T>
void Tile<T>::write(std::int64_t k, const ForwardOutputs<T>& out) {
  if (out.iterates == nullptr) return;
  const std::int64_t n = problem_.n_atoms;
  for (std::int64_t s = begin_; s < end_; ++s) {
    const T* row = dense_.row(k % 2, s);
    std::copy(row, row + n, out.iterates + (k * problem_.batch + first_ + s) * n);
  }
}

template <class T>
void Tile<T>::objective(std::int64_t k, const T* residual_rows, std::int64_t stride, T* out) {
  const Lists<T> lists = codes(k);
  for (std::int64_t s = 0; s < samples_; ++s) {
    T l1 = 0;
    for (std::int32_t p = 0; p < lists.count[s]; ++p) {
      l1 += std::fabs(lists.value[s * lists.stride + p]);
    }
    const T squares =
        kernels_.sum_of_squares(padded<T>(problem_.n_measurements), residual_rows + s * stride);
    out[k * problem_.batch + first_ + s] = T(0.5) * squares + problem_.objective_weight * l1;
  }
}

template void product<float>(const Kernels<float>&, std::int64_t, const Lists<float>&, const float*,
                             std::int64_t, const PackedMatrix<float>&, std::int64_t, float*,
                             std::int64_t, std::int32_t*);
template void product<double>(const Kernels<double>&, std::int64_t, const Lists<double>&,
                              const double*, std::int64_t, const PackedMatrix<double>&,
                              std::int64_t, double*, std::int64_t, std::int32_t*);
template class Tile<float>;
template class Tile<double>;

}  // namespace fastunroll::cpu
