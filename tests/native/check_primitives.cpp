// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "check.h"
#include "cpu/buffers.h"
#include "cpu/kernels.h"
#include "cpu/unrolled.h"

namespace check {
namespace {

using namespace fastunroll;
using cpu::padded;

constexpr double kSum = 16;         // roundings of a sum, relative to its largest result
constexpr double kElementwise = 4;  // and of a formula
constexpr std::int64_t kSizes[] = {1, 2, 3, 7, 15, 17, 63, 65, 127, 129, 131, 257};
constexpr double kDensities[] = {0, 0.02, 0.1, 0.5, 1};
constexpr std::int64_t kSamples[] = {1, 2, 7, 13};

// Lists of random entries, the same as dense rows, and memory of exactly the promised size.
template <class T>
struct Entries {
  Entries(Random& random, std::int64_t samples, std::int64_t rows, double density)
      : dense(static_cast<std::size_t>(samples * rows)), store(1, samples, rows) {
    for (std::int64_t s = 0; s < samples; ++s) {
      std::int32_t count = 0;
      for (std::int64_t i = 0; i < rows; ++i) {
        if (!random.chance(density)) continue;
        const T value = static_cast<T>(2 * random.unit() - 1);
        dense[static_cast<std::size_t>(s * rows + i)] = value;
        lists().index[s * lists().stride + count] = static_cast<std::int32_t>(i);
        lists().value[s * lists().stride + count++] = value;
      }
      lists().end(s, count);
    }
  }
  cpu::Lists<T> lists() const { return store.lists(0); }

  std::vector<T> dense;
  cpu::ListStore<T> store;
};

template <class T>
std::vector<T> packed(const std::vector<T>& source, std::int64_t rows, std::int64_t cols) {
  std::vector<T> target(static_cast<std::size_t>(rows * padded<T>(cols)));
  cpu::pack<T>(source.data(), 1, rows, cols, 0, cols, 1, target.data());
  return target;
}

template <class T>
void check_products(Results& results, Random& random, std::int64_t samples, std::int64_t rows,
                    std::int64_t cols, double density) {
  const cpu::Kernels<T>& kernels = cpu::active<T>();
  const Entries<T> in(random, samples, rows, density);
  const std::vector<T> data = packed(random.numbers<T>(rows * cols, 0, 1), rows, cols);
  const PackedMatrix<T> matrix{data.data(), rows, cols, 0};
  const std::int64_t stride = padded<T>(cols);
  const std::vector<T> vectors = random.numbers<T>(samples * stride, 0, 1);
  std::vector<std::int32_t> cursor(static_cast<std::size_t>(samples));

  std::vector<T> sparse = vectors;
  kernels.sparse_product(samples, in.lists(), matrix, 0, sparse.data(), stride, cursor.data());
  results.add("sparse_product", sparse, kSum);
  std::vector<T> dense = vectors;
  kernels.dense_product(samples, in.dense.data(), rows, matrix, 0, dense.data(), stride);
  results.expect_same("dense and sparse product", dense, sparse);

  std::vector<T> dots(static_cast<std::size_t>(samples * in.lists().stride));
  kernels.row_dots(samples, in.lists(), matrix, 0, vectors.data(), stride, dots.data(),
                   cursor.data());
  results.add("row_dots", dots, kSum);

  cpu::TransposedStore<T> turned(1, samples, rows);
  turned.build(0, samples, in.lists(), [](std::int64_t) { return T(0.5); });
  const std::int64_t block = cpu::block_columns<T>();
  std::vector<T> target = random.numbers<T>(rows * block, 0, 1);
  kernels.row_accumulate(rows / 3, rows, turned.get(0), vectors.data(), stride, target.data());
  results.add("row_accumulate", target, kSum);
}

// Arguments of a shrinkage: among them zeros of both signs, the threshold itself, and NaN.
template <class T>
struct Arguments {
  Arguments(Random& random, std::int64_t n, bool vectors)
      : step(random.numbers<T>(vectors ? n : 1, 0.5, 0.4)),
        threshold(random.numbers<T>(vectors ? n : 1, 0.4, 0.3)),
        y(random.numbers<T>(padded<T>(n), 0, 1)),
        v(random.numbers<T>(padded<T>(n), 0, 1)) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const T special[] = {T(0), -T(0), threshold[vectors ? i : 0], -threshold[vectors ? i : 0],
                           std::numeric_limits<T>::quiet_NaN()};
      if (!random.chance(0.3)) continue;
      y[i] = special[static_cast<std::size_t>(random.unit() * 5)];
      v[i] = 0;
    }
  }
  std::vector<T> step, threshold, y, v;
};

// The same with thresholds that keep all entries, or none.
template <class T>
std::vector<Arguments<T>> all_arguments(Random& random, std::int64_t n, bool vectors) {
  std::vector<Arguments<T>> all(3, Arguments<T>(random, n, vectors));
  for (T& t : all[1].threshold) t = 0;
  for (T& t : all[2].threshold) t = 9;
  return all;
}

constexpr Prox kProx[] = {Prox::soft,   Prox::nonnegative, Prox::hard,
                          Prox::smooth, Prox::firm,        Prox::scad};

template <class T>
void check_shrinkage(Results& results, Random& random, std::int64_t n, bool vectors, Prox prox) {
  const cpu::Kernels<T>& kernels = cpu::active<T>();
  for (const Arguments<T>& a : all_arguments<T>(random, n, vectors)) {
    std::vector<T> x(static_cast<std::size_t>(padded<T>(n)));
    const cpu::ListStore<T> store(1, 1, n);
    const cpu::Lists<T> lists = store.lists(0);
    cpu::ProxRow<T> row;
    row.n = n;
    row.y = a.y.data();
    row.v = a.v.data();
    row.step = a.step.data();
    row.threshold = a.threshold.data();
    row.step_is_vector = row.threshold_is_vector = vectors;
    row.nonnegative = prox == Prox::nonnegative;
    row.shrink = prox;
    row.shape = T(2.75);
    row.x = x.data();
    const std::int32_t count = kernels.prox(row, lists.index, lists.value);
    results.add("prox, x", x, kElementwise);
    results.add_exact("prox, index", {lists.index, lists.index + count});
    results.add("prox, value", std::vector<T>(lists.value, lists.value + count), kElementwise);
    if (prox >= Prox::smooth) {
      const auto entries = static_cast<std::size_t>(count);
      std::vector<T> slope(entries), threshold_slope(entries), shape_slope(entries);
      kernels.prox_slopes({count, lists.value, row.threshold, vectors, prox, row.shape,
                           slope.data(), threshold_slope.data(), shape_slope.data()});
      results.add("prox_slopes, u", slope, kElementwise);
      results.add("prox_slopes, threshold", threshold_slope, kElementwise);
      results.add("prox_slopes, shape", shape_slope, kElementwise);
    }
    row.y = nullptr;
    kernels.prox(row, lists.index, lists.value);
    results.add("prox without y", x, kElementwise);
    if (prox >= Prox::firm) continue;
    const auto size = static_cast<std::size_t>(n);
    const std::vector<T> u(a.y.begin(), a.y.begin() + n), grad(a.v.begin(), a.v.begin() + n);
    std::vector<T> out(size), grad_u(size);
    kernels.shrink(n, u.data(), row.threshold, vectors, prox, out.data());
    results.add("shrink", out, kElementwise);
    std::vector<double> terms(size);
    const double sum = kernels.shrink_backward(n, grad.data(), u.data(), row.threshold, vectors,
                                               prox, grad_u.data(), terms.data());
    results.add("shrink_backward, u", grad_u, kElementwise);
    results.add("shrink_backward, threshold", std::vector<T>(terms.begin(), terms.end()),
                kElementwise);
    results.add("shrink_backward, sum", std::vector<T>{static_cast<T>(sum)}, kSum);
  }
}

template <class T>
void check_rows(Results& results, Random& random, std::int64_t n) {
  const cpu::Kernels<T>& kernels = cpu::active<T>();
  const Entries<T> a(random, 2, padded<T>(n), 0.4);
  const T* first = a.dense.data();
  const T* second = first + padded<T>(n);
  std::vector<T> out(static_cast<std::size_t>(padded<T>(n)));
  kernels.negate(n, first, padded<T>(n), out.data());
  results.add("negate", out, 0);
  const cpu::ListStore<T> store(1, 1, n);
  const cpu::Lists<T> lists = store.lists(0);
  const std::int32_t count =
      kernels.extrapolate(n, first, second, T(0.375), out.data(), lists.index, lists.value);
  results.add("extrapolate, y", std::vector<T>(out.begin(), out.begin() + n), kElementwise);
  results.add_exact("extrapolate, index", {lists.index, lists.index + count});
  results.add("extrapolate, value", std::vector<T>(lists.value, lists.value + count), kElementwise);
  results.add(
      "sums",
      std::vector<T>{kernels.sum_of_squares(padded<T>(n), first),
                     kernels.dot(n, first, second, false), kernels.dot(n, first, second, true)},
      kSum);
}

template <class T>
void check_type(Results& results, const std::string& type) {
  Random random;
  for (const std::int64_t n : kSizes) {
    results.begin(type + ", n = " + std::to_string(n) + ": ");
    check_rows<T>(results, random, n);
    for (const Prox prox : kProx) {
      for (const bool vectors : {false, true}) {
        results.begin(type + ", n = " + std::to_string(n) + (vectors ? ", per atom" : "") +
                      ", shrinkage " + std::to_string(static_cast<int>(prox)) + ": ");
        check_shrinkage<T>(results, random, n, vectors, prox);
      }
    }
    for (const double density : kDensities) {
      for (const std::int64_t samples : kSamples) {
        results.begin(type + ", n = " + std::to_string(n) + ", " + std::to_string(samples) +
                      " samples, density " + std::to_string(density) + ": ");
        check_products<T>(results, random, samples, n, n / 2 + 1, density);
        check_products<T>(results, random, samples, n / 2 + 1, n, density);
      }
    }
  }
}

}  // namespace

void check_primitives(Results& results) {
  check_type<float>(results, "float");
  check_type<double>(results, "double");
}

}  // namespace check
