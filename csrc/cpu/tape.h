// SPDX-License-Identifier: Apache-2.0
// What the forward pass leaves for the backward pass, so that it need not run again: for every
// sample and layer the support of x_{k+1}, its values there, and those of v_k.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace fastunroll::cpu {

class Tape {
 public:
  void start(std::int64_t samples) { records_.assign(static_cast<std::size_t>(samples), {}); }

  std::int64_t bytes() const {
    std::int64_t total = 0;
    for (const auto& record : records_) total += static_cast<std::int64_t>(record.capacity());
    return total;
  }

  // Bytes of a sample's record so far; the next one can be expected to become as long.
  std::int64_t size(std::int64_t sample) const {
    return static_cast<std::int64_t>(record(sample).size());
  }
  void reserve(std::int64_t sample, std::int64_t bytes) {
    record(sample).reserve(static_cast<std::size_t>(bytes));
  }

  // Appends the next layer of a sample: `count` entries with ascending `index`; v is a dense row.
  template <class T>
  void write(std::int64_t sample, std::int32_t count, const std::int32_t* index, const T* value,
             const T* v) {
    std::vector<unsigned char>& to = record(sample);
    const std::size_t at = to.size();
    to.resize(at + sizeof(count) + static_cast<std::size_t>(count) * entry_bytes<T>());
    unsigned char* p = to.data() + at;
    p = put(p, &count, 1);
    p = put(p, value, count);
    for (std::int32_t i = 0; i < count; ++i) p = put(p, v + index[i], 1);
    for (std::int32_t i = 0; i < count; ++i) {
      const auto narrow = static_cast<std::uint16_t>(index[i]);
      p = put(p, &narrow, 1);
    }
  }

  // Reads the layer that starts at `offset` of a sample's record; returns where the next one does.
  template <class T>
  std::size_t read(std::int64_t sample, std::size_t offset, std::int32_t* count,
                   std::int32_t* index, T* value, T* v) const {
    const unsigned char* p = record(sample).data() + offset;
    p = get(p, count, 1);
    p = get(p, value, *count);
    p = get(p, v, *count);
    for (std::int32_t i = 0; i < *count; ++i) {
      std::uint16_t narrow = 0;
      p = get(p, &narrow, 1);
      index[i] = narrow;
    }
    return offset + sizeof(*count) + static_cast<std::size_t>(*count) * entry_bytes<T>();
  }

 private:
  template <class T>
  static constexpr std::size_t entry_bytes() {
    return 2 * sizeof(T) + sizeof(std::uint16_t);
  }
  template <class U>
  static unsigned char* put(unsigned char* to, const U* from, std::int32_t count) {
    const std::size_t bytes = sizeof(U) * static_cast<std::size_t>(count);
    std::memcpy(to, from, bytes);
    return to + bytes;
  }
  template <class U>
  static const unsigned char* get(const unsigned char* from, U* to, std::int32_t count) {
    const std::size_t bytes = sizeof(U) * static_cast<std::size_t>(count);
    std::memcpy(to, from, bytes);
    return from + bytes;
  }
  const std::vector<unsigned char>& record(std::int64_t sample) const {
    return records_[static_cast<std::size_t>(sample)];
  }
  std::vector<unsigned char>& record(std::int64_t sample) {
    return records_[static_cast<std::size_t>(sample)];
  }

  std::vector<std::vector<unsigned char>> records_;
};

}  // namespace fastunroll::cpu
