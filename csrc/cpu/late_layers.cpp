// SPDX-License-Identifier: Apache-2.0
#include "cpu/late_layers.h"

namespace fastunroll::cpu {

template <class T>
LateLayers<T>::LateLayers(const Problem<T>& problem, std::int64_t capacity)
    : problem_(problem),
      kernels_(active<T>()),
      samples_(static_cast<std::size_t>(capacity)),
      position_(capacity * problem.n_atoms, Fill::none),
      begin_(capacity * (problem.n_atoms + 1), Fill::none),
      direction_(problem.n_atoms),
      codes_(problem.n_atoms),
      rows_(1, 1, problem.n_measurements),
      totals_(1, capacity, problem.n_atoms),
      totals_by_row_(1, capacity, problem.n_atoms),
      negated_(1, capacity, problem.n_measurements) {}

template <class T>
void LateLayers<T>::start(const Tile<T>& tile) {
  first_ = cheapest_start(tile);
  if (first_ == problem_.n_layers) return;
  for (std::int64_t s = 0; s < tile.samples(); ++s) gather(tile, s);
}

// In multiply-adds: a list costs 3 products with its entries as x_k and 2 as those of v_{k-1}; here
// A_U^T A_U and (H + H^T) A_U^T cost 3/2 m |U|^2, and every entry takes |U| twice.
template <class T>
std::int64_t LateLayers<T>::cheapest_start(const Tile<T>& tile) {
  const std::int64_t layers = problem_.n_layers;
  const auto m = static_cast<double>(problem_.n_measurements);
  std::fill(position_.get(), position_.get() + tile.samples() * problem_.n_atoms, -1);
  std::vector<double> atoms(static_cast<std::size_t>(tile.samples()));
  std::vector<double> entries(static_cast<std::size_t>(tile.samples()));
  std::int64_t best = layers;
  double best_gain = 0;
  double lists = 0;
  for (std::int64_t k = layers; k > 0; --k) {
    const Lists<T> codes = tile.codes(k);
    double cost = 0;
    for (std::int64_t s = 0; s < tile.samples(); ++s) {
      const auto sample = static_cast<std::size_t>(s);
      for (std::int32_t p = 0; p < codes.count[s]; ++p) {
        std::int32_t& place = position(s)[codes.index[s * codes.stride + p]];
        atoms[sample] += place < 0 ? 1 : 0;
        place = 0;
      }
      lists += (k == layers ? 2 : 5) * m * codes.count[s];
      entries[sample] += codes.count[s];
      cost += (1.5 * m * atoms[sample] + 2 * entries[sample]) * atoms[sample];
    }
    if (k < layers && lists - cost > best_gain) {
      best = k;
      best_gain = lists - cost;
    }
  }
  return best;
}

template <class T>
void LateLayers<T>::gather(const Tile<T>& tile, std::int64_t s) {
  const std::int64_t n = problem_.n_atoms;
  Sample& sample = samples_[static_cast<std::size_t>(s)];
  std::int32_t* place = position(s);
  std::fill(place, place + n, -1);
  for (std::int64_t k = first_; k <= problem_.n_layers; ++k) {
    const Lists<T> codes = tile.codes(k);
    for (std::int32_t p = 0; p < codes.count[s]; ++p) place[codes.index[s * codes.stride + p]] = 0;
  }
  sample.atoms.clear();
  for (std::int64_t i = 0; i < n; ++i) {
    if (place[i] < 0) continue;
    place[i] = static_cast<std::int32_t>(sample.atoms.size());
    sample.atoms.push_back(static_cast<std::int32_t>(i));
  }
  const std::size_t size = sample.size = sample.atoms.size();
  sample.atoms.push_back(kListEnd);
  sample.gram.assign(size * size, T(0));
  sample.sums.assign(size * size, T(0));
  sample.total.assign(size, T(0));
  const PackedMatrix<T>& matrix = problem_.dictionary_t;
  for (std::size_t j = 0; j < size; ++j) {
    T* row = rows_.rows(0);
    for (std::int64_t column = 0; column < padded<T>(problem_.n_measurements);
         column += block_columns<T>()) {
      const T* from = matrix.data + column * matrix.rows + sample.atoms[j] * block_columns<T>();
      std::copy(from, from + block_columns<T>(), row + column);
    }
    auto count = static_cast<std::int32_t>(size - j);
    const Lists<T> rest{&count, sample.atoms.data() + j, nullptr, 0};
    T* gram = sample.gram.data() + j * size;
    kernels_.row_dots(1, rest, matrix, 0, row, 0, gram + j, tile.cursor());
    for (std::size_t i = j; i < size; ++i) sample.gram[i * size + j] = gram[i];
  }
}

template <class T>
void LateLayers<T>::through(const Tile<T>& tile, std::int64_t k, const Lists<T>& grads, T* rows,
                            std::int64_t stride) {
  const Lists<T> codes = tile.codes(k);
  for (std::int64_t s = 0; s < tile.samples(); ++s) {
    Sample& sample = samples_[static_cast<std::size_t>(s)];
    const std::size_t size = sample.size;
    const std::int32_t* place = position(s);
    T* direction = direction_.get();
    T* sum = codes_.get();
    std::fill(direction, direction + size, T(0));
    std::fill(sum, sum + size, T(0));
    for (std::int32_t p = 0; p < grads.count[s]; ++p) {
      const std::int64_t at = s * grads.stride + p;
      const std::int32_t j = place[grads.index[at]];
      const T grad = grads.value[at];
      const T* gram = sample.gram.data() + static_cast<std::size_t>(j) * size;
      direction[j] = grad;
      sample.total[static_cast<std::size_t>(j)] += grad;
      for (std::size_t i = 0; i < size; ++i) sum[i] += grad * gram[i];
    }
    for (std::int32_t p = 0; p < codes.count[s]; ++p) {
      const std::int64_t at = s * codes.stride + p;
      const std::int32_t i = place[codes.index[at]];
      T* sums = sample.sums.data() + static_cast<std::size_t>(i) * size;
      for (std::size_t j = 0; j < size; ++j) sums[j] += codes.value[at] * direction[j];
      rows[s * stride + codes.index[at]] = sum[i];
    }
  }
}

template <class T>
void LateLayers<T>::finish(const Tile<T>& tile, T* measurements) {
  const std::int64_t n = problem_.n_atoms;
  const std::int64_t m = problem_.n_measurements;
  const Lists<T> totals = totals_.lists(0);
  for (std::int64_t s = 0; s < tile.samples(); ++s) {
    Sample& sample = samples_[static_cast<std::size_t>(s)];
    const std::size_t size = sample.size;
    sample.column_atoms.resize(size * size);
    for (std::size_t i = 0; i < size; ++i) {
      std::copy(sample.atoms.data(), sample.atoms.data() + size,
                sample.column_atoms.data() + i * size);
      for (std::size_t j = 0; j <= i; ++j) {
        const T sum = sample.sums[i * size + j] + sample.sums[j * size + i];
        sample.sums[i * size + j] = sample.sums[j * size + i] = sum;
      }
    }
    std::int32_t* row = begin(s);
    std::int32_t entries = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      row[i] = entries;
      if (position(s)[i] >= 0) entries += static_cast<std::int32_t>(size);
    }
    row[n] = entries;
    std::copy(sample.atoms.data(), sample.atoms.data() + size, totals.index + s * totals.stride);
    std::copy(sample.total.begin(), sample.total.end(), totals.value + s * totals.stride);
    totals.end(s, static_cast<std::int32_t>(size));
    kernels_.negate(m, problem_.measurements + (tile.first() + s) * m, negated_.stride(),
                    negated_.row(0, s));
  }
  totals_by_row_.build(0, tile.samples(), totals, [](std::int64_t) { return T(1); });
  if (measurements == nullptr) return;
  for (std::int64_t s = 0; s < tile.samples(); ++s) {
    std::fill(rows_.rows(0), rows_.rows(0) + rows_.stride(), T(0));
    const Lists<T> one{totals.count + s, totals.index + s * totals.stride,
                       totals.value + s * totals.stride, 0};
    kernels_.sparse_product(1, one, problem_.dictionary_t, 0, rows_.rows(0), 0, tile.cursor());
    T* grad = measurements + (tile.first() + s) * m;
    for (std::int64_t j = 0; j < m; ++j) grad[j] -= rows_.rows(0)[j];
  }
}

template <class T>
void LateLayers<T>::add(const Tile<T>& tile, std::int64_t first, std::int64_t last,
                        std::int64_t column, T* target) const {
  const PackedMatrix<T>& matrix = problem_.dictionary_t;
  const T* block = matrix.data + column * matrix.rows;
  for (std::int64_t s = 0; s < tile.samples(); ++s) {
    const Sample& sample = samples_[static_cast<std::size_t>(s)];
    kernels_.row_accumulate(first, last, {begin(s), sample.column_atoms.data(), sample.sums.data()},
                            block, block_columns<T>(), target);
  }
  kernels_.row_accumulate(first, last, totals_by_row_.get(0), negated_.rows(0) + column,
                          negated_.stride(), target);
}

template class LateLayers<float>;
template class LateLayers<double>;

}  // namespace fastunroll::cpu
