// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>
#include <deque>
#include <memory>
#include <vector>

#include "cuda/device.h"
#include "cuda/fiber.h"

namespace fastunroll::cuda::emulate {
namespace {

constexpr std::size_t kStackBytes = 128 << 10;

// Threads that wait for one another.
struct Group {
  int size = 0;
  int arrived = 0;
  int line = 0;
  std::array<void*, kWarp> data{};
  std::vector<struct Fiber*> waiting;
};

struct Warp : Group {
  int epoch = 0;
};

// Who touched four bytes of shared memory, and when: a number is an epoch of the thread's warp,
// its block and the cluster, which a barrier of that group ends.
struct Access {
  int thread = -1;  // in the cluster
  int warp_epoch = 0;
  int block_epoch = 0;
  int cluster_epoch = 0;
};

struct Word {
  Access writer;
  std::array<Access, 2> readers;  // the last two threads
  bool written = false;
  bool in_flight = false;
};

struct Block {
  int index = 0;
  int epoch = 0;
  Group all;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;
  std::vector<Word> words;
};

struct Copy {
  int offset;
  int bytes;
  const unsigned char* from;  // null: zeros
};

struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack;
  Block* block = nullptr;
  int thread = 0;
  int place = 0;                         // in the cluster
  std::deque<std::vector<Copy>> copies;  // groups; the last is open
};

// The cluster that runs. A launch runs its clusters one after the other.
struct Cluster {
  std::vector<Block> blocks;
  Group all;
  int epoch = 0;
  int threads = 0;  // of a block
  int grid = 0;
  std::deque<Fiber*> ready;
  Fiber* running = nullptr;
  int left = 0;
  Context launcher;
  const std::function<void()>* body = nullptr;
};

Cluster* cluster = nullptr;

Warp& warp_of(const Fiber& fiber) {
  return fiber.block->warps[static_cast<std::size_t>(fiber.thread / kWarp)];
}

Access now(const Fiber& fiber) {
  return {fiber.place, warp_of(fiber).epoch, fiber.block->epoch, cluster->epoch};
}

// Whether a barrier lies between an access and the present of the fiber.
bool ordered(const Access& before, const Fiber& fiber) {
  if (before.thread < 0 || before.thread == fiber.place) return true;
  if (before.thread / cluster->threads != fiber.place / cluster->threads) {
    return before.cluster_epoch < cluster->epoch;
  }
  if (before.thread / kWarp == fiber.place / kWarp) {
    return before.warp_epoch < warp_of(fiber).epoch;
  }
  return before.block_epoch < fiber.block->epoch;
}

// Runs the next fiber that can go on; back here when this one can.
void yield_to_next() {
  if (cluster->ready.empty()) {
    int line = cluster->all.line;
    for (const Block& block : cluster->blocks) {
      if (block.all.arrived > 0) line = block.all.line;
      for (const Warp& warp : block.warps) {
        if (warp.arrived > 0) line = warp.line;
      }
    }
    fail("a barrier that not all threads reach", line);
  }
  Fiber* const self = cluster->running;
  Fiber* const next = cluster->ready.front();
  cluster->ready.pop_front();
  cluster->running = next;
  self->context.switch_to(next->context);
}

void thread_main() {
  (*cluster->body)();
  Fiber& self = *cluster->running;
  for (const auto& group : self.copies) {
    if (!group.empty()) fail("a thread ends with asynchronous copies under way", 0);
  }
  if (--cluster->left == 0) self.context.switch_to(cluster->launcher);
  yield_to_next();
}

void check(Block& block, int offset, int bytes, bool writes, int line) {
  const Fiber& self = *cluster->running;
  const int last = (offset + bytes - 1) / 4;
  if (offset < 0 || last >= static_cast<int>(block.words.size())) {
    fail("shared memory out of range", line);
  }
  for (int i = offset / 4; i <= last; ++i) {
    Word& word = block.words[static_cast<std::size_t>(i)];
    if (word.in_flight) fail("target of a copy that was not waited for", line);
    if (!writes && !word.written) fail("shared memory read before it is written", line);
    bool race = !ordered(word.writer, self);
    if (writes) {
      for (const Access& reader : word.readers) race = race || !ordered(reader, self);
      word.writer = now(self);
      word.readers = {};
      word.written = true;
    } else {
      if (word.readers[0].thread != self.place) word.readers[1] = word.readers[0];
      word.readers[0] = now(self);
    }
    if (race) fail("shared memory accessed by two threads without a barrier in between", line);
  }
}

Block& block_at(int rank) {
  return rank < 0 ? *cluster->running->block : cluster->blocks[static_cast<std::size_t>(rank)];
}

void bump(Block& block) {
  ++block.epoch;
  for (Warp& warp : block.warps) ++warp.epoch;
}

}  // namespace

void fail(const char* what, int line) {
  std::fprintf(stderr, "emulated kernel: %s (line %d", what, line);
  if (cluster != nullptr && cluster->running != nullptr) {
    std::fprintf(stderr, ", block %d, thread %d", cluster->running->block->index,
                 cluster->running->thread);
  }
  std::fprintf(stderr, ")\n");
  std::abort();
}

int thread_index() { return cluster->running->thread; }
int block_index() { return cluster->running->block->index; }
int block_count() { return cluster->grid; }
int cluster_rank() { return cluster->running->place / cluster->threads; }

void meet(Meeting kind, int line, void* data, void (*finish)(void**)) {
  Fiber* const self = cluster->running;
  Warp& warp = warp_of(*self);
  Group& group = kind == Meeting::cluster ? cluster->all
                 : kind == Meeting::block ? self->block->all
                                          : static_cast<Group&>(warp);
  if (group.arrived > 0 && group.line != line) {
    fail("threads of a group at different barriers", line);
  }
  group.line = line;
  group.data[static_cast<std::size_t>(self->thread % kWarp)] = data;
  if (++group.arrived < group.size) {
    group.waiting.push_back(self);
    yield_to_next();
    return;
  }
  if (finish != nullptr) finish(group.data.data());
  group.arrived = 0;
  if (kind == Meeting::warp_in_order) ++warp.epoch;
  if (kind == Meeting::block) bump(*self->block);
  if (kind == Meeting::cluster) {
    ++cluster->epoch;
    for (Block& block : cluster->blocks) bump(block);
  }
  cluster->ready.insert(cluster->ready.end(), group.waiting.begin(), group.waiting.end());
  group.waiting.clear();
}

void shared_read(int rank, int offset, int bytes, void* to, int line) {
  Block& block = block_at(rank);
  check(block, offset, bytes, false, line);
  std::memcpy(to, block.shared.data() + offset, static_cast<std::size_t>(bytes));
}

void shared_write(int rank, int offset, int bytes, const void* from, int line) {
  Block& block = block_at(rank);
  check(block, offset, bytes, true, line);
  std::memcpy(block.shared.data() + offset, from, static_cast<std::size_t>(bytes));
}

void copy_async(int offset, int bytes, const void* from, bool valid, int line) {
  Fiber& self = *cluster->running;
  check(*self.block, offset, bytes, true, line);
  for (int i = offset / 4; i <= (offset + bytes - 1) / 4; ++i) {
    self.block->words[static_cast<std::size_t>(i)].in_flight = true;
  }
  self.copies.back().push_back(
      {offset, bytes, valid ? static_cast<const unsigned char*>(from) : nullptr});
}

void commit_copies() { cluster->running->copies.emplace_back(); }

// The copies happen as late as they can.
void wait_copies(int groups) {
  Fiber& self = *cluster->running;
  while (static_cast<int>(self.copies.size()) - 1 > groups) {
    for (const Copy& copy : self.copies.front()) {
      unsigned char* const to = self.block->shared.data() + copy.offset;
      const auto bytes = static_cast<std::size_t>(copy.bytes);
      if (copy.from == nullptr) {
        std::memset(to, 0, bytes);
      } else {
        std::memcpy(to, copy.from, bytes);
      }
      for (int i = copy.offset / 4; i <= (copy.offset + copy.bytes - 1) / 4; ++i) {
        Word& word = self.block->words[static_cast<std::size_t>(i)];
        word.in_flight = false;
        word.writer = now(self);
      }
    }
    self.copies.pop_front();
  }
}

void run(const LaunchShape& shape, const std::function<void()>& body) {
  static std::vector<std::unique_ptr<Fiber>> fibers;
  const int threads = shape.block * shape.cluster;
  while (static_cast<int>(fibers.size()) < threads) {
    fibers.push_back(std::make_unique<Fiber>());
    fibers.back()->stack.reset(new char[kStackBytes]);
  }
  if (shape.block % kWarp != 0 || shape.grid % shape.cluster != 0) {
    fail("a launch of partial warps or clusters", 0);
  }
  for (std::int64_t first = 0; first < shape.grid; first += shape.cluster) {
    Cluster now_running;
    cluster = &now_running;
    cluster->threads = shape.block;
    cluster->grid = static_cast<int>(shape.grid);
    cluster->left = cluster->all.size = threads;
    cluster->body = &body;
    cluster->blocks.resize(static_cast<std::size_t>(shape.cluster));
    for (int b = 0; b < shape.cluster; ++b) {
      Block& block = cluster->blocks[static_cast<std::size_t>(b)];
      block.index = static_cast<int>(first) + b;
      block.all.size = shape.block;
      block.warps.resize(static_cast<std::size_t>(shape.block / kWarp));
      for (Warp& warp : block.warps) warp.size = kWarp;
      block.shared.assign(static_cast<std::size_t>(shape.shared_bytes), 0xff);
      block.words.resize(static_cast<std::size_t>((shape.shared_bytes + 3) / 4));
      for (int t = 0; t < shape.block; ++t) {
        Fiber& fiber = *fibers[static_cast<std::size_t>(b * shape.block + t)];
        fiber.block = &block;
        fiber.thread = t;
        fiber.place = b * shape.block + t;
        fiber.copies.assign(1, {});
        fiber.context.start(fiber.stack.get(), kStackBytes, thread_main);
        cluster->ready.push_back(&fiber);
      }
    }
    cluster->running = cluster->ready.front();
    cluster->ready.pop_front();
    cluster->launcher.switch_to(cluster->running->context);
    cluster = nullptr;
  }
}

float toward_zero(double a) {
  const auto nearest = static_cast<float>(a);
  if (!std::isfinite(a) || std::fabs(static_cast<double>(nearest)) <= std::fabs(a)) return nearest;
  return std::nextafter(nearest, 0.0f);
}

}  // namespace fastunroll::cuda::emulate

namespace fastunroll::cuda {
namespace {

// A float rounded to nearest even with `kBits` fewer bits, as an integer of its bits.
std::uint32_t round_bits(std::uint32_t bits, int dropped) {
  const std::uint32_t half = (1u << (dropped - 1)) - 1u + ((bits >> dropped) & 1u);
  return (bits + half) >> dropped;
}

}  // namespace

float __bfloat162float(Bfloat16 a) { return as_float(static_cast<std::uint32_t>(a.bits) << 16); }

Bfloat16 __float2bfloat16_rn(float a) {
  if (std::isnan(a)) return {0x7fff};
  return {static_cast<std::uint16_t>(round_bits(as_bits(a), 16))};
}

float __half2float(Half a) {
  const int exponent = (a.bits >> 10) & 31;
  const int fraction = a.bits & 1023;
  const float sign = (a.bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return sign * (fraction == 0 ? HUGE_VALF : std::nanf(""));
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

Half __float2half_rn(float a) {
  const std::uint32_t sign = (as_bits(a) >> 16) & 0x8000u;
  const float size = std::fabs(a);
  std::uint32_t bits = 0x7c00;  // infinity
  if (std::isnan(a)) {
    bits = 0x7fff;
  } else if (size < 0x1p-14f) {
    bits = static_cast<std::uint32_t>(std::nearbyint(size * 0x1p24f));
  } else if (size < 65520.0f) {
    bits = round_bits(as_bits(size), 13) - (112u << 10);
  }
  return {static_cast<std::uint16_t>(sign | bits)};
}

}  // namespace fastunroll::cuda
