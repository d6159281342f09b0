// SPDX-License-Identifier: Apache-2.0
// Memory of the recursion: aligned rows and compact lists, owned by the calling thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "cpu/kernels.h"

namespace fastunroll::cpu {

enum class Fill { zeros, none };

// Array of trivial elements, aligned to cache lines.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t size, Fill fill = Fill::zeros)
      : size_(size), data_(static_cast<T*>(::operator new(bytes(size), std::align_val_t(64)))) {
    if (fill == Fill::zeros) std::memset(static_cast<void*>(data_.get()), 0, bytes(size));
  }
  T* get() const { return data_.get(); }
  T& operator[](std::int64_t i) const { return data_.get()[i]; }
  // Room for `size` elements, with any content.
  void reserve(std::int64_t size) {
    if (size > size_) *this = Buffer(size, Fill::none);
  }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  static std::size_t bytes(std::int64_t size) {
    return static_cast<std::size_t>(std::max<std::int64_t>(size, 1)) * sizeof(T);
  }
  std::int64_t size_ = 0;
  std::unique_ptr<T, Free> data_;
};

// Dense rows of `slots` layers: rows(slot) holds one padded row per sample. Rows lie an odd number
// of cache lines apart, so that the same columns of many samples are spread over the sets of a
// cache.
template <class T>
class RowStore {
 public:
  RowStore() = default;
  RowStore(std::int64_t slots, std::int64_t samples, std::int64_t cols, Fill fill = Fill::zeros)
      : stride_(padded<T>(cols) + 64 / static_cast<std::int64_t>(sizeof(T))),
        slot_stride_(samples * stride_),
        data_(slots * slot_stride_, fill) {}
  // Room for `slots`, with any content.
  void reserve(std::int64_t slots) { data_.reserve(slots * slot_stride_); }
  T* rows(std::int64_t slot) const { return data_.get() + slot * slot_stride_; }
  T* row(std::int64_t slot, std::int64_t sample) const { return rows(slot) + sample * stride_; }
  std::int64_t stride() const { return stride_; }

 private:
  std::int64_t stride_ = 0;
  std::int64_t slot_stride_ = 0;
  Buffer<T> data_;
};

// Lists of several layers. Their capacity allows whole vectors to be written past the last entry.
template <class T>
class ListStore {
 public:
  ListStore() = default;
  ListStore(std::int64_t slots, std::int64_t samples, std::int64_t rows) : samples_(samples) {
    lay_out(std::vector<std::int64_t>(static_cast<std::size_t>(slots), rows));
  }
  // For restored layers: no longer than needed, because what is not touched costs no memory.
  explicit ListStore(std::int64_t samples) : samples_(samples) {}

  // Empty lists with room for longest[slot] entries a sample.
  void lay_out(const std::vector<std::int64_t>& longest) {
    slots_.clear();
    size_ = 0;
    for (const std::int64_t entries : longest) {
      slots_.push_back({size_, entries + 16});
      size_ += samples_ * (entries + 16);
    }
    const auto counts = static_cast<std::int64_t>(longest.size()) * samples_;
    count_.reserve(counts);
    std::fill(count_.get(), count_.get() + counts, 0);
    index_.reserve(size_);
    value_.reserve(size_);
  }
  Lists<T> lists(std::int64_t slot) const {
    const auto [offset, stride] = slots_[static_cast<std::size_t>(slot)];
    return {count_.get() + slot * samples_, index_.get() + offset, value_.get() + offset, stride};
  }
  // Where the values of a slot begin among those of all slots, and how many these are.
  std::int64_t offset(std::int64_t slot) const {
    return slots_[static_cast<std::size_t>(slot)].offset;
  }
  std::int64_t size() const { return size_; }

 private:
  struct Slot {
    std::int64_t offset;
    std::int64_t stride;
  };
  std::int64_t samples_ = 0;
  std::int64_t size_ = 0;
  std::vector<Slot> slots_;
  Buffer<std::int32_t> count_;
  Buffer<std::int32_t> index_;
  Buffer<T> value_;
};

// Lists turned by row, for `slots` layers: what the parameters' gradients are summed from.
template <class T>
class TransposedStore {
 public:
  TransposedStore() = default;
  TransposedStore(std::int64_t slots, std::int64_t samples, std::int64_t rows)
      : rows_(rows), capacity_(samples * rows) {
    reserve(slots);
  }

  // Room for `slots`, with any content.
  void reserve(std::int64_t slots) {
    begin_.reserve(slots * (rows_ + 1));
    sample_.reserve(slots * capacity_);
    value_.reserve(slots * capacity_);
  }

  TransposedLists<T> get(std::int64_t slot) const {
    return {begin_.get() + slot * (rows_ + 1), sample_.get() + slot * capacity_,
            value_.get() + slot * capacity_};
  }

  // Stores the entries of `lists` with `scale(sample)` times their values.
  template <class Scale>
  void build(std::int64_t slot, std::int64_t samples, const Lists<T>& lists, Scale scale) {
    std::int32_t* begin = begin_.get() + slot * (rows_ + 1);
    std::int32_t* sample = sample_.get() + slot * capacity_;
    T* value = value_.get() + slot * capacity_;
    std::fill(begin, begin + rows_ + 1, 0);
    for (std::int64_t s = 0; s < samples; ++s) {
      const std::int32_t* index = lists.index + s * lists.stride;
      for (std::int32_t p = 0; p < lists.count[s]; ++p) ++begin[index[p]];
    }
    std::int32_t total = 0;
    for (std::int64_t i = 0; i < rows_; ++i) total = begin[i] += total;
    begin[rows_] = total;
    // Filled from behind, so that the samples of a row end up in ascending order.
    for (std::int64_t s = samples - 1; s >= 0; --s) {
      const T factor = scale(s);
      for (std::int32_t p = 0; p < lists.count[s]; ++p) {
        const std::int32_t slot_of = --begin[lists.index[s * lists.stride + p]];
        sample[slot_of] = static_cast<std::int32_t>(s);
        value[slot_of] = factor * lists.value[s * lists.stride + p];
      }
    }
  }

 private:
  std::int64_t rows_ = 0;
  std::int64_t capacity_ = 0;
  Buffer<std::int32_t> begin_;
  Buffer<std::int32_t> sample_;
  Buffer<T> value_;
};

}  // namespace fastunroll::cpu
