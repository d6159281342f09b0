// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <utility>
#include <vector>

#include "cpu/backward_tile.h"
#include "cpu/check.h"
#include "cpu/transpose.h"
#include "cpu/unrolled.h"

namespace fastunroll::cpu {
namespace {

// Samples of a tile: as many as keep its traces in a second-level cache, and no more than fill the
// vectors' loops; but many where A itself does not fit there, and every tile reads it anew. Where
// every layer has matrices of its own, each tile takes up all of them and their gradients; then
// more samples share that, though a batch still makes several tiles. The number depends on the
// sizes alone, because sums over samples go tile by tile and the result must not depend on the
// threads.
constexpr std::int64_t kMaxTileSamples = 32;
constexpr std::int64_t kMaxUntiedTileSamples = 128;
constexpr std::int64_t kUntiedTiles = 4;
constexpr int kUntiedGroup = 2;  // tiles that run before their sums are added
constexpr std::int64_t kMinTileSamples = 8;
constexpr std::int64_t kLargeTileSamples = 64;

template <class T>
std::int64_t tile_samples(const Problem<T>& problem, const BackwardArguments<T>& args) {
  if (args.n_weights > 1 || args.n_grams > 1) {
    const std::int64_t share = (problem.batch + kUntiedTiles - 1) / kUntiedTiles;
    return std::clamp(share, kMaxTileSamples, kMaxUntiedTileSamples);
  }
  if (problem.factored() && args.tape != nullptr && exceeds_cache(problem.dictionary_t)) {
    return kLargeTileSamples;
  }
  const std::int64_t row = problem.n_atoms + 2 * problem.n_measurements;
  const std::int64_t sample = problem.n_layers * row * static_cast<std::int64_t>(sizeof(T));
  return std::clamp(kCacheBytes / sample, kMinTileSamples, kMaxTileSamples);
}

// Rows of a block of columns that one task sums.
constexpr std::int64_t kTaskRows = 256;

// The gradient of matrices (rows, cols), summed part by part in blocks of columns: a part is taken
// from `out` (at first it is 0), stays in the cache while a group of tiles is added, and goes back.
// For dA^T and dW^T, which the tiles sum by atom, `out` holds dA and dW.
template <class T>
struct MatrixGradient {
  using Part = typename BackwardTile<T>::Part;

  std::int64_t blocks() const { return padded<T>(cols) / block_columns<T>(); }
  std::int64_t row_tasks() const { return (rows + kTaskRows - 1) / kTaskRows; }
  std::int64_t tasks() const { return out == nullptr ? 0 : matrices * blocks() * row_tasks(); }

  // The part that a task sums, at `target`.
  Part part(std::int64_t task, T* target) const {
    const std::int64_t block = task / row_tasks();
    const std::int64_t first = task % row_tasks() * kTaskRows;
    return {block / blocks(), first, std::min(first + kTaskRows, rows),
            block % blocks() * block_columns<T>(), target};
  }
  void load(const Part& part, bool begins) const {
    const std::int64_t count = part.last - part.first;
    if (begins) {
      std::fill(part.target, part.target + count * block_columns<T>(), T(0));
      return;
    }
    const std::int64_t width = std::min(block_columns<T>(), cols - part.column);
    const T* from = at(part);
    if (transposed) {
      transpose(width, count, from, rows, part.target, block_columns<T>());
    } else {
      copy_rows(count, width, from, cols, part.target, block_columns<T>());
    }
  }
  void store(const Part& part) const {
    const std::int64_t count = part.last - part.first;
    const std::int64_t width = std::min(block_columns<T>(), cols - part.column);
    if (transposed) {
      transpose(count, width, part.target, block_columns<T>(), at(part), rows);
    } else {
      copy_rows(count, width, part.target, block_columns<T>(), at(part), cols);
    }
  }

  T* out = nullptr;
  std::int64_t matrices = 0, rows = 0, cols = 0;
  bool transposed = false;

 private:
  T* at(const Part& part) const {
    T* matrix = out + part.matrix * rows * cols;
    return transposed ? matrix + part.column * rows + part.first
                      : matrix + part.first * cols + part.column;
  }
};

template <class T>
bool sums_per_atom(const LayerParameter<T>& p, const T* out) {
  return out != nullptr && p.atom_stride != 0 && p.sample_stride == 0;
}

// (K, B) sums to a gradient of shape (K) or (K, B).
template <class T>
void reduce_samples(const Buffer<double>& sums, std::int64_t layers, std::int64_t batch,
                    bool per_sample, T* out) {
  if (out == nullptr || sums.get() == nullptr) return;
  for (std::int64_t k = 0; k < layers; ++k) {
    double total = 0;
    for (std::int64_t s = 0; s < batch; ++s) {
      const double term = sums[k * batch + s];
      total += term;
      if (per_sample) out[k * batch + s] = static_cast<T>(term);
    }
    if (!per_sample) out[k] = static_cast<T>(total);
  }
}

template <class T>
class Backward {
 public:
  Backward(const Problem<T>& problem, const BackwardArguments<T>& args, int threads)
      : problem_(problem), args_(args), threads_(threads), size_(tile_samples(problem, args)) {
    const std::int64_t cells = problem.n_layers * problem.batch;
    if (args.step != nullptr && problem.step.atom_stride == 0) sums_.step = Buffer<double>(cells);
    if (args.threshold != nullptr && problem.threshold.atom_stride == 0) {
      sums_.threshold = Buffer<double>(cells);
    }
    if (args.rule_weight != nullptr) sums_.rule_weight = Buffer<double>(cells);
    if (args.rule_bias != nullptr) sums_.rule_bias = Buffer<double>(cells);
    if (args.momentum != nullptr) sums_.momentum = Buffer<double>(cells);
    if (args.prox_shape != nullptr) sums_.prox_shape = Buffer<double>(cells);
    const std::int64_t n = problem.n_atoms;
    const std::int64_t m = problem.n_measurements;
    gram_ = {args.gram, args.n_grams, n, n, false};
    dictionary_ = {args.dictionary, 1, n, m, true};
    weight_ = {args.weight, args.n_weights, n, m, true};
    atom_sums_ = Buffer<double>(2 * problem.n_layers * n);
    const std::int64_t tiles = (problem.batch + size_ - 1) / size_;
    const bool untied = args.n_weights > 1 || args.n_grams > 1;
    group_ = std::min<std::int64_t>(tiles, untied ? std::max(threads, kUntiedGroup) : threads);
    for (int t = 0; t < threads; ++t)
      parts_.emplace_back(kTaskRows * block_columns<T>(), Fill::none);
    for (std::int64_t t = 0; t < group_; ++t) {
      tiles_.push_back(
          std::make_unique<BackwardTile<T>>(problem, args, sums_, std::min(size_, problem.batch)));
    }
  }

  // A group of tiles runs, one per thread; then every thread adds the tiles, in order, to its parts
  // of the gradients.
  void run() {
    for (std::int64_t start = 0; start < problem_.batch; start += group_ * size_) {
      const std::int64_t left = (problem_.batch - start + size_ - 1) / size_;
      const std::int64_t count = std::min(group_, left);
      parallel_for(count, threads_, [&](std::int64_t t, int) {
        const std::int64_t first = start + t * size_;
        tiles_[static_cast<std::size_t>(t)]->run(first, std::min(size_, problem_.batch - first));
      });
      parallel_for(tasks(), threads_, [&](std::int64_t task, int worker) {
        add(count, task, start == 0, parts_[static_cast<std::size_t>(worker)].get());
      });
    }
    finish();
  }

 private:
  bool step_per_atom() const {
    return problem_.step.data != nullptr && sums_per_atom(problem_.step, args_.step);
  }
  bool threshold_per_atom() const { return sums_per_atom(problem_.threshold, args_.threshold); }

  std::int64_t tasks() const {
    return gram_.tasks() + dictionary_.tasks() + weight_.tasks() +
           (step_per_atom() || threshold_per_atom() ? problem_.n_layers : 0);
  }

  // Adds the first `count` tiles, in order, to the part of the gradients that the task owns.
  void add(std::int64_t count, std::int64_t task, bool begins, T* target) {
    using Add =
        void (BackwardTile<T>::*)(std::int64_t, const typename BackwardTile<T>::Part&) const;
    const std::pair<const MatrixGradient<T>*, Add> targets[] = {
        {&gram_, &BackwardTile<T>::add_gram},
        {&dictionary_, &BackwardTile<T>::add_dictionary},
        {&weight_, &BackwardTile<T>::add_weight}};
    for (const auto& [gradient, add_stage] : targets) {
      if (task >= gradient->tasks()) {
        task -= gradient->tasks();
        continue;
      }
      const auto part = gradient->part(task, target);
      gradient->load(part, begins);
      for (std::int64_t t = 0; t < count; ++t) {
        const BackwardTile<T>& tile = *tiles_[static_cast<std::size_t>(t)];
        for (std::int64_t k = problem_.n_layers - 1; k >= -1; --k) (tile.*add_stage)(k, part);
      }
      gradient->store(part);
      return;
    }
    for (std::int64_t t = 0; t < count; ++t) {
      tiles_[static_cast<std::size_t>(t)]->add_atom_terms(
          task, step_per_atom() ? atom_sums(0, task) : nullptr,
          threshold_per_atom() ? atom_sums(1, task) : nullptr);
    }
  }

  double* atom_sums(std::int64_t parameter, std::int64_t k) {
    return atom_sums_.get() + (parameter * problem_.n_layers + k) * problem_.n_atoms;
  }

  void finish() {
    const std::int64_t layers = problem_.n_layers;
    const std::int64_t batch = problem_.batch;
    reduce_samples(sums_.step, layers, batch, problem_.step.sample_stride != 0, args_.step);
    reduce_samples(sums_.threshold, layers, batch, problem_.threshold.sample_stride != 0,
                   args_.threshold);
    reduce_samples(sums_.rule_weight, layers, batch, false, args_.rule_weight);
    reduce_samples(sums_.rule_bias, layers, batch, false, args_.rule_bias);
    reduce_samples(sums_.momentum, layers, batch, false, args_.momentum);
    reduce_samples(sums_.prox_shape, layers, batch, false, args_.prox_shape);
    const std::int64_t cells = layers * problem_.n_atoms;
    const auto narrow = [](double a) { return static_cast<T>(a); };
    if (sums_per_atom(problem_.step, args_.step)) {
      std::transform(atom_sums(0, 0), atom_sums(0, 0) + cells, args_.step, narrow);
    }
    if (sums_per_atom(problem_.threshold, args_.threshold)) {
      std::transform(atom_sums(1, 0), atom_sums(1, 0) + cells, args_.threshold, narrow);
    }
  }

  const Problem<T>& problem_;
  const BackwardArguments<T>& args_;
  const int threads_;
  const std::int64_t size_;  // samples of a tile
  std::int64_t group_ = 0;
  SampleSums sums_;
  MatrixGradient<T> gram_;
  MatrixGradient<T> dictionary_;
  MatrixGradient<T> weight_;
  std::vector<Buffer<T>> parts_;  // one per thread
  Buffer<double> atom_sums_;
  std::vector<std::unique_ptr<BackwardTile<T>>> tiles_;
};

}  // namespace

template <class T>
Status unrolled_backward(const Problem<T>& problem, const BackwardArguments<T>& args, int threads) {
  const Status status = check_values(problem);
  if (status != Status::ok) return status;
  try {
    Backward<T>(problem, args, std::max(threads, 1)).run();
  } catch (const std::bad_alloc&) {
    return Status::out_of_memory;
  }
  return Status::ok;
}

template Status unrolled_backward<float>(const Problem<float>&, const BackwardArguments<float>&,
                                         int);
template Status unrolled_backward<double>(const Problem<double>&, const BackwardArguments<double>&,
                                          int);

}  // namespace fastunroll::cpu
