// SPDX-License-Identifier: Apache-2.0
// Problems of reference.h handed to the kernels, in arrays whose ends the sanitizers watch.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cuda/api.h"
#include "reference.h"

namespace harness {

using namespace fastunroll;
using namespace fastunroll::cuda;

// Memory of the size that was asked for, filled with NaN, or a copy of numbers; null where empty.
template <class T>
class Memory {
 public:
  Memory() = default;
  explicit Memory(std::size_t count) : count_(count), data_(count == 0 ? nullptr : new T[count]) {
    if (count > 0) std::memset(static_cast<void*>(data_.get()), 0xff, count * sizeof(T));
  }
  template <class From>
  static Memory of(const std::vector<From>& values) {
    Memory memory(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) memory.data_[i] = static_cast<T>(values[i]);
    return memory;
  }
  T* get() const { return data_.get(); }
  std::size_t size() const { return count_; }

 private:
  std::size_t count_ = 0;
  std::unique_ptr<T[]> data_;
};

struct Options {
  Precision precision = Precision::plain;
  Device device;
  std::size_t budget = 1 << 20;
};

// A problem in the memory of the kernels.
template <class T>
struct Bound {
  Bound(const Case& c, const Data& d, Precision precision);

  Network<T> net;
  std::vector<Memory<T>> arrays;
  std::vector<Memory<unsigned char>> packed;
  Memory<std::int64_t> bypass;
};

// Results of the forward pass; empty where there is no kernel for the problem.
template <class T>
Result run_forward(const Case& c, const Data& d, const Options& options, Path* path);

// Results of both passes.
template <class T>
Result run_backward(const Case& c, const Data& d, const Options& options, Path* path);

void check(Error error);

// Norm of the difference over the norm of the expected; infinite where a number is not finite.
double error_of(const Array& ours, const Array& expected);

}  // namespace harness
