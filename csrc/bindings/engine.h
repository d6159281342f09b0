// SPDX-License-Identifier: Apache-2.0
// Inference with a problem that stays: NumPy arrays in, NumPy arrays out, no check made twice and
// no memory asked for twice.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "cpu/check.h"
#include "cpu/tile.h"
#include "fastunroll/problem.h"

namespace fastunroll::bindings {

namespace py = pybind11;

template <class T>
class Engine {
 public:
  // The problem's measurements and batch are those of each call; all else that it points to stays
  // alive with the caller. Batches of at least `parallel_batch` samples run on `threads` threads.
  Engine(const Problem<T>& problem, std::vector<std::int64_t> bypass, std::int64_t parallel_batch,
         int threads)
      : problem_(problem),
        bypass_(std::move(bypass)),
        parallel_batch_(parallel_batch),
        threads_(threads) {
    problem_.bypass = bypass_.empty() ? nullptr : bypass_.data();
  }

  // Of the parameters; to be asked for before a call where they may have changed.
  Status status() const { return cpu::check_values(problem_); }

  // Codes of b (batch, m), on so many threads; parameters may have changed since the last call.
  Status run_rows(std::int64_t batch, const T* b, T* codes, int threads) {
    const Status found = status();
    if (found == Status::ok) forward(batch, b, codes, threads);
    return found;
  }

  // Codes of b (batch, m) or (m,), in `out` unless it is None. Where an argument is not a NumPy
  // array as the kernels want it, the result is None and nothing was done. Calls may overlap.
  py::object run(py::handle b, py::object out) {
    const std::int64_t m = problem_.n_measurements;
    const std::int64_t n = problem_.n_atoms;
    if (!fits(b)) return py::none();
    const auto measurements = py::reinterpret_borrow<py::array>(b);
    const py::ssize_t axes = measurements.ndim();
    if (axes < 1 || axes > 2 || measurements.shape(axes - 1) != m) return py::none();
    const std::int64_t batch = axes == 2 ? measurements.shape(0) : 1;
    const T* from = static_cast<const T*>(measurements.data());
    if (out.is_none()) {
      out = axes == 2 ? py::array_t<T>({batch, n}) : py::array_t<T>(n);
    } else {
      if (!fits(out)) return py::none();
      const auto given = py::reinterpret_borrow<py::array>(out);
      if (!given.writeable() || given.ndim() != axes || given.shape(axes - 1) != n ||
          given.shape(0) != (axes == 2 ? batch : n) ||
          overlap(from, batch * m, static_cast<const T*>(given.data()), batch * n)) {
        return py::none();
      }
    }
    T* const codes = static_cast<T*>(py::reinterpret_borrow<py::array>(out).mutable_data());
    {
      const py::gil_scoped_release release;
      forward(batch, from, codes, batch < parallel_batch_ ? 1 : threads_);
    }
    return out;
  }

 private:
  static constexpr std::int64_t kSamples = 32;

  // A thread's own problem and tile.
  struct Workspace {
    Workspace(const Problem<T>& other, std::int64_t capacity)
        : problem(other), tile(problem, capacity, false) {}
    Problem<T> problem;
    cpu::Tile<T> tile;
  };
  using Workspaces = std::vector<std::unique_ptr<Workspace>>;

  void forward(std::int64_t batch, const T* measurements, T* codes, int threads) {
    const std::int64_t workers = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, batch));
    const std::int64_t size = std::min(kSamples, (batch + workers - 1) / workers);
    const std::int64_t tiles = size == 0 ? 0 : (batch + size - 1) / size;
    Workspaces used = take(std::min(workers, tiles), size);
    for (auto& workspace : used) {
      workspace->problem.batch = batch;
      workspace->problem.measurements = measurements;
    }
    const ForwardOutputs<T> outputs{codes, nullptr, nullptr, nullptr};
    cpu::parallel_for(tiles, static_cast<int>(used.size()), [&](std::int64_t t, int worker) {
      const std::int64_t first = t * size;
      used[static_cast<std::size_t>(worker)]->tile.run(first, std::min(size, batch - first),
                                                       outputs);
    });
    const std::lock_guard lock(mutex_);
    std::move(used.begin(), used.end(), std::back_inserter(free_));
  }

  // Workspaces for `size` samples each that no other call uses.
  Workspaces take(std::int64_t count, std::int64_t size) {
    Workspaces taken;
    {
      const std::lock_guard lock(mutex_);
      while (static_cast<std::int64_t>(taken.size()) < count && !free_.empty()) {
        taken.push_back(std::move(free_.back()));
        free_.pop_back();
      }
    }
    taken.resize(static_cast<std::size_t>(count));
    for (auto& workspace : taken) {
      if (workspace == nullptr || workspace->tile.capacity() < size) {
        workspace = std::make_unique<Workspace>(problem_, size);
      }
    }
    return taken;
  }

  static bool fits(py::handle array) {
    if (!py::isinstance<py::array_t<T, py::array::c_style>>(array)) return false;
    return (py::reinterpret_borrow<py::array>(array).flags() &
            py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  }

  static bool overlap(const T* a, std::int64_t a_size, const T* b, std::int64_t b_size) {
    return std::less<>()(a, b + b_size) && std::less<>()(b, a + a_size);
  }

  Problem<T> problem_;
  std::vector<std::int64_t> bypass_;
  const std::int64_t parallel_batch_;
  const int threads_;
  std::mutex mutex_;
  Workspaces free_;
};

}  // namespace fastunroll::bindings
