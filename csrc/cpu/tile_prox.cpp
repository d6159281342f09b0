// SPDX-License-Identifier: Apache-2.0
// One layer's shrinkage of a tile, with support selection.
#include <cmath>

#include "cpu/tile.h"
#include "math/prox.h"

namespace fastunroll::cpu {

// How many of the largest entries of u skip the shrinkage.
template <class T>
std::int64_t Tile<T>::selected(std::int64_t k, std::int64_t s) const {
  if (!adapts_) return problem_.bypass[k];
  const T share = math::selected_share(problem_.selection[k], first_errors_[s], errors_[s]);
  return static_cast<std::int64_t>(share * static_cast<T>(problem_.n_atoms) + T(0.5));
}

// Shrinks the listed values u of one sample, but for the selected ones (ties at the last rank
// included), and drops those that do not exceed their threshold.
template <class T>
void Tile<T>::select_support(std::int64_t k, std::int64_t s, const T* threshold, T* x) {
  const Lists<T> lists = codes(k + 1);
  const std::int32_t count = lists.count[s];
  std::int32_t* index = lists.index + s * lists.stride;
  T* value = lists.value + s * lists.stride;
  const auto wanted = static_cast<std::int32_t>(std::min<std::int64_t>(selected(k, s), count));
  T rank = 0;
  const bool all = wanted == count;
  if (wanted > 0 && !all) {
    T* magnitude = magnitudes_.get();
    for (std::int32_t p = 0; p < count; ++p) magnitude[p] = std::fabs(value[p]);
    std::nth_element(magnitude, magnitude + (wanted - 1), magnitude + count, [](T a, T b) {
      return a > b || (std::isnan(a) && !std::isnan(b));  // NaN ranks first: an order even then
    });
    rank = magnitude[wanted - 1];
  }
  std::uint8_t* flags = kept_.get() + kept_offset(k + 1, s);
  std::int32_t left = 0;
  for (std::int32_t p = 0; p < count; ++p) {
    const std::int32_t i = index[p];
    const T u = value[p];
    const T limit = threshold[problem_.threshold.atom_stride * i];
    if (std::fabs(u) <= limit) {
      x[i] = T(0);
      continue;
    }
    flags[left] = all || (wanted > 0 && !(std::fabs(u) < rank));
    x[i] = flags[left] != 0 ? u : math::shrink(u, limit, problem_.prox);
    value[left] = x[i];
    index[left++] = i;
  }
  lists.end(s, left);
}

// x_{k+1} = prox(u), dense over the rows of x_{k-1} and as lists.
template <class T>
void Tile<T>::shrink(std::int64_t k, Tape* tape) {
  const Lists<T> lists = codes(k + 1);
  const bool selects = problem_.bypass != nullptr || adapts_;
  ProxRow<T> row;
  row.n = problem_.n_atoms;
  row.nonnegative = problem_.prox == Prox::nonnegative;
  row.step_is_vector = problem_.step.data != nullptr && problem_.step.atom_stride != 0;
  row.threshold_is_vector = problem_.threshold.atom_stride != 0;
  row.shrink = problem_.prox;
  if (problem_.prox_shape != nullptr) row.shape = problem_.prox_shape[k];
  const T zero = 0;
  if (selects) {
    // Support selection ranks u first and shrinks afterwards. Where the thresholds differ from atom
    // to atom, entries below theirs take part in the ranking.
    row.shrink = Prox::hard;
    row.threshold_is_vector = false;
  }
  for (std::int64_t s = begin_; s < end_; ++s) {
    row.v = directions_.row(direction_slot(k), s);
    if (problem_.skip) {
      row.y = problem_.momentum == nullptr ? dense_.row(k % 2, s) : extrapolated_.row(0, s);
    }
    row.step = problem_.step.data == nullptr ? &rule_step(k, s)
                                             : parameter_row(problem_.step, k, first_ + s);
    const T* threshold = parameter_row(problem_.threshold, k, first_ + s);
    const T adapted = adapts_ ? *threshold * errors_[s] : T(0);
    if (adapts_) threshold = &adapted;
    row.threshold = selects && problem_.threshold.atom_stride != 0 ? &zero : threshold;
    row.x = dense_.row((k + 1) % 2, s);
    lists.end(s,
              kernels_.prox(row, lists.index + s * lists.stride, lists.value + s * lists.stride));
    if (selects) select_support(k, s, threshold, row.x);
    const std::int32_t* index = lists.index + s * lists.stride;
    if (tape != nullptr) {
      TapeRecord& record = records_[static_cast<std::size_t>(s)];
      if (k == 0) record.clear();
      record.write(lists.count[s], index, lists.value + s * lists.stride, row.v, kept(k + 1, s));
      if (k + 1 == problem_.n_layers) tape->set(first_ + s, record);
    }
    if (!trace_) continue;
    T* kept_v = support_direction_row(k, s);
    for (std::int32_t p = 0; p < lists.count[s]; ++p) kept_v[p] = row.v[index[p]];
  }
}

template void Tile<float>::shrink(std::int64_t, Tape*);
template void Tile<double>::shrink(std::int64_t, Tape*);

}  // namespace fastunroll::cpu
