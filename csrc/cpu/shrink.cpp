// SPDX-License-Identifier: Apache-2.0
#include "cpu/shrink.h"

#include <cmath>
#include <vector>

#include "cpu/check.h"
#include "cpu/kernels.h"

namespace fastunroll::cpu {
namespace {

constexpr std::int64_t kRowsPerTask = 64;
constexpr std::int64_t kAtomsPerTask = 256;

template <class T>
bool valid(const ShrinkProblem<T>& p) {
  const LayerParameter<T> threshold{p.threshold, 0, p.sample_stride, p.atom_stride};
  return all_of(threshold, 1, p.rows, p.cols, [](T t) { return std::isfinite(t) && t >= T(0); });
}

}  // namespace

template <class T>
Status shrink(const ShrinkProblem<T>& p, T* out, int threads) {
  if (!valid(p)) return Status::bad_threshold;
  const Kernels<T>& kernels = active<T>();
  const std::int64_t tasks = (p.rows + kRowsPerTask - 1) / kRowsPerTask;
  parallel_for(tasks, threads, [&](std::int64_t task, int) {
    const std::int64_t end = std::min((task + 1) * kRowsPerTask, p.rows);
    for (std::int64_t r = task * kRowsPerTask; r < end; ++r) {
      kernels.shrink(p.cols, p.u + r * p.cols, p.threshold + r * p.sample_stride,
                     p.atom_stride != 0, p.prox, out + r * p.cols);
    }
  });
  return Status::ok;
}

template <class T>
Status shrink_backward(const ShrinkProblem<T>& p, const T* grad, T* grad_u, T* grad_threshold,
                       int threads) {
  if (!valid(p)) return Status::bad_threshold;
  const Kernels<T>& kernels = active<T>();
  const bool per_atom = p.atom_stride != 0;
  // Per atom a task owns a range of columns, else a range of rows; both walk the rows in order.
  const std::int64_t row_tasks = (p.rows + kRowsPerTask - 1) / kRowsPerTask;
  const std::int64_t atom_tasks = (p.cols + kAtomsPerTask - 1) / kAtomsPerTask;
  std::vector<double> sums(static_cast<std::size_t>(per_atom ? p.cols : p.rows), 0.0);
  parallel_for(per_atom ? atom_tasks : row_tasks, threads, [&](std::int64_t task, int) {
    const std::int64_t row = per_atom ? 0 : task * kRowsPerTask;
    const std::int64_t row_end = per_atom ? p.rows : std::min(row + kRowsPerTask, p.rows);
    const std::int64_t col = per_atom ? task * kAtomsPerTask : 0;
    const std::int64_t cols = per_atom ? std::min(kAtomsPerTask, p.cols - col) : p.cols;
    for (std::int64_t r = row; r < row_end; ++r) {
      const std::int64_t at = r * p.cols + col;
      const double total = kernels.shrink_backward(
          cols, grad + at, p.u + at, p.threshold + r * p.sample_stride + (per_atom ? col : 0),
          per_atom, p.prox, grad_u + at, per_atom ? sums.data() + col : nullptr);
      if (!per_atom) sums[static_cast<std::size_t>(r)] = total;
    }
  });
  if (per_atom || p.sample_stride != 0) {
    std::transform(sums.begin(), sums.end(), grad_threshold,
                   [](double a) { return static_cast<T>(a); });
  } else {
    double total = 0;
    for (const double a : sums) total += a;
    *grad_threshold = static_cast<T>(total);
  }
  return Status::ok;
}

template Status shrink<float>(const ShrinkProblem<float>&, float*, int);
template Status shrink<double>(const ShrinkProblem<double>&, double*, int);
template Status shrink_backward<float>(const ShrinkProblem<float>&, const float*, float*, float*,
                                       int);
template Status shrink_backward<double>(const ShrinkProblem<double>&, const double*, double*,
                                        double*, int);

}  // namespace fastunroll::cpu
