// SPDX-License-Identifier: Apache-2.0
// What the forward pass leaves for the backward pass, so that it need not run again: for every
// sample and layer the support of x_{k+1}, its values there, and those of v_k; with support
// selection, also which entries were kept unshrunk.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace fastunroll::cpu {

// One sample's layers: their numbers of entries; and, one layer after the other, the values of x,
// those of v, the gaps between the indices in bytes (255: add it and read on), and a bit per entry
// that tells whether it was kept.
class TapeRecord {
 public:
  void clear() {
    counts_.clear();
    bytes_.clear();
  }
  std::int64_t size() const {
    return static_cast<std::int64_t>(bytes_.capacity() + counts_.capacity() * sizeof(std::int32_t));
  }
  // Entries of x_{k+1}.
  std::int32_t count(std::int64_t k) const { return counts_[static_cast<std::size_t>(k)]; }

  // Appends a layer; v is a dense row, kept is null without support selection.
  template <class T>
  void write(std::int32_t count, const std::int32_t* index, const T* value, const T* v,
             const std::uint8_t* kept) {
    const auto entries = static_cast<std::size_t>(count);
    const std::size_t at = bytes_.size();
    const std::size_t escapes = count == 0 ? 0 : static_cast<std::size_t>(index[count - 1]) / 255;
    const std::size_t flags = kept == nullptr ? 0 : (entries + 7) / 8;
    counts_.push_back(count);
    bytes_.resize(at + entries * (2 * sizeof(T) + 1) + escapes + flags);
    unsigned char* p = bytes_.data() + at;
    if (count > 0) std::memcpy(p, value, entries * sizeof(T));
    p += entries * sizeof(T);
    for (std::int32_t i = 0; i < count; ++i, p += sizeof(T)) {
      std::memcpy(p, v + index[i], sizeof(T));
    }
    std::int32_t next = 0;
    for (std::int32_t i = 0; i < count; ++i) {
      std::int32_t gap = index[i] - next;
      for (; gap >= 255; gap -= 255) *p++ = 255;
      *p++ = static_cast<unsigned char>(gap);
      next = index[i] + 1;
    }
    if (flags > 0) std::memset(p, 0, flags);
    for (std::size_t i = 0; i < entries && flags > 0; ++i) {
      p[i / 8] = static_cast<unsigned char>(p[i / 8] | (kept[i] != 0 ? 1u << (i % 8) : 0u));
    }
    p += flags;
    bytes_.resize(static_cast<std::size_t>(p - bytes_.data()));
  }

  // Reads layer k, which lies at `offset`; returns the offset of the next one.
  template <class T>
  std::size_t read(std::int64_t k, std::size_t offset, std::int32_t* index, T* value, T* v,
                   std::uint8_t* kept) const {
    const std::int32_t entries = count(k);
    offset = get(offset, value, entries);
    offset = get(offset, v, entries);
    std::int32_t next = 0;
    const unsigned char* p = bytes_.data() + offset;
    for (std::int32_t i = 0; i < entries; ++i) {
      for (; *p == 255; ++p) next += 255;
      index[i] = next + *p++;
      next = index[i] + 1;
    }
    if (kept != nullptr) {
      for (std::int32_t i = 0; i < entries; ++i) kept[i] = (p[i / 8] >> (i % 8)) & 1u;
      p += (entries + 7) / 8;
    }
    return static_cast<std::size_t>(p - bytes_.data());
  }

 private:
  template <class U>
  std::size_t get(std::size_t offset, U* to, std::int32_t count) const {
    const std::size_t bytes = sizeof(U) * static_cast<std::size_t>(count);
    if (bytes > 0) std::memcpy(to, bytes_.data() + offset, bytes);
    return offset + bytes;
  }

  std::vector<std::int32_t> counts_;
  std::vector<unsigned char> bytes_;
};

class Tape {
 public:
  void start(std::int64_t samples) { records_.assign(static_cast<std::size_t>(samples), {}); }
  // Takes a copy that is no longer than its content.
  void set(std::int64_t sample, const TapeRecord& record) {
    records_[static_cast<std::size_t>(sample)] = record;
  }
  const TapeRecord& get(std::int64_t sample) const {
    return records_[static_cast<std::size_t>(sample)];
  }
  std::int64_t bytes() const {
    std::int64_t total = 0;
    for (const auto& record : records_) total += record.size();
    return total;
  }

 private:
  std::vector<TapeRecord> records_;
};

}  // namespace fastunroll::cpu
