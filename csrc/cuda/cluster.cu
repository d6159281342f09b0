// SPDX-License-Identifier: Apache-2.0
// The forward pass of few samples: the blocks of a cluster hold the matrices in shared memory, each
// some columns of them, and take one or four samples through all layers. A block multiplies, gives
// its columns of the residual or of v to all blocks of the cluster, and after a barrier of the
// cluster every block makes all of x for itself.
//
// Count for (250, 500), one sample, 8 blocks: a block has 128 KB of matrices. Dense, a layer reads
// them once, 1000 cycles at 128 bytes a cycle; rows of A^T where x is 0 are skipped, in eights.
// With two barriers of the cluster and the pass over x a layer takes about 2000 cycles, 16 layers
// about 20 microseconds. The Gram form has one product and one barrier.
#include <algorithm>

#include "cuda/cluster.h"
#include "cuda/forward.h"
#include "cuda/rows.h"
#include "cuda/tile.h"

namespace fastunroll::cuda {
namespace {

constexpr int kBlocks = 8;
constexpr std::int64_t kMostSamples = 256;
constexpr int kRun = 8;  // rows that are skipped together

// Columns of a matrix that each block of the cluster has.
FASTUNROLL_HD int slice_cols(std::int64_t cols) {
  return round_up(cols, kWarp * kBlocks) / kBlocks;
}

// The pieces of a block's shared memory, in floats.
struct Sizes {
  int first;    // slice of A^T or G
  int second;   // slice of W
  int vector;   // rows of a vector that is multiplied, in full runs
  int history;  // of x
  int residual;

  FASTUNROLL_HD Sizes(const Network<float>& net, int samples) {
    const std::int64_t n = net.n_atoms, m = net.n_measurements;
    vector = round_up(n, kRun);
    first = vector * slice_cols(net.factored() ? m : n);
    second = net.factored() ? round_up(m, kRun) * slice_cols(n) : 0;
    history = net.momentum != nullptr ? static_cast<int>(2 * n * samples) : 0;
    residual = net.factored() ? round_up(m, kRun) : 0;
  }
};

template <int kSamples>
class ClusterTile {
  using Samples = Pack<float, kSamples>;

 public:
  __device__ __forceinline__ explicit ClusterTile(const ForwardArguments<float>& a)
      : a_(a),
        net_(a.net),
        sizes_(a.net, kSamples),
        n_(static_cast<int>(a.net.n_atoms)),
        m_(static_cast<int>(a.net.n_measurements)),
        rank_(cluster_rank()) {
    SharedLayout layout;
    first_ = layout.take<float>(sizes_.first);
    second_ = layout.take<float>(sizes_.second);
    point_ = layout.take<float>(sizes_.vector * kSamples);
    residual_ = layout.take<float>(sizes_.residual * kSamples);
    direction_ = layout.take<float>(2 * n_ * kSamples);
    history_ = layout.take<float>(sizes_.history);
    partial_ = layout.take<float>(kThreads * kSamples);
    group_.parts = layout.take<float>(kWarps);
  }

  static int bytes(const Network<float>& net) {
    const Sizes s(net, kSamples);
    const auto of = [](std::int64_t count) { return SharedLayout::bytes<float>(count); };
    return of(s.first) + of(s.second) + of(s.vector * kSamples) + of(s.residual * kSamples) +
           of(2 * net.n_atoms * kSamples) + of(s.history) + of(kThreads * kSamples) + of(kWarps);
  }

  __device__ __forceinline__ void run() {
    clear(point_, sizes_.vector * kSamples);
    clear(residual_, sizes_.residual * kSamples);
    const PackedMatrix<float>& matrix = net_.factored() ? net_.dictionary_t : net_.gram;
    const bool resident = matrix.layer_stride == 0;
    if (resident) load_slice(first_, matrix, 0);
    if (net_.factored() && net_.weight.layer_stride == 0) load_slice(second_, net_.weight, 0);
    sync_cluster();
    const std::int64_t stride = static_cast<std::int64_t>(block_count() / kBlocks) * kSamples;
    for (sample_ = block_index() / kBlocks * kSamples; sample_ < net_.batch; sample_ += stride) {
      begin();
      for (int k = 0; k < net_.n_layers; ++k) {
        if (!resident) load_slice(first_, matrix, k);
        if (net_.factored() && net_.weight.layer_stride != 0) load_slice(second_, net_.weight, k);
        layer(k);
      }
      if (rank_ == 0) end();
    }
    sync_cluster();
  }

 private:
  struct BlockGroup {
    Shared<float> parts = Shared<float>::at(0, 0);
    __device__ __forceinline__ int rank() const { return thread_index(); }
    __device__ __forceinline__ int size() const { return kThreads; }
    __device__ __forceinline__ float sum(float value) const {
      value = warp_sum(value);
      sync_block();
      if (lane() == 0) parts[warp()] = value;
      sync_block();
      float total = 0;
      for (int w = 0; w < kWarps; ++w) total += parts[w];
      return total;
    }
    // Exact: a count of atoms is below 2^24.
    __device__ __forceinline__ int count(int value) const {
      return static_cast<int>(sum(static_cast<float>(value)));
    }
  };

  __device__ __forceinline__ void clear(Shared<float> data, int count) const {
    for (int i = thread_index(); i < count; i += kThreads) data[i] = 0.0f;
  }

  // This block's columns of a matrix; those that it does not have are zeros.
  __device__ __forceinline__ void load_slice(Shared<float> slice, const PackedMatrix<float>& p,
                                             int layer) const {
    const int cols = slice_cols(p.cols);
    const int rows = round_up(p.rows, kRun);
    const std::int64_t panel_size =
        static_cast<std::int64_t>(slabs<float>(p.rows, Kind::plain)) * (kSlabBytes / 4);
    const float* const data = p.data + layer * p.layer_stride;
    for (int i = 4 * thread_index(); i < rows * cols; i += 4 * kThreads) {
      const int column = rank_ * cols + i % cols;
      const bool inside = column < panels(p.cols) * kPanel;
      const float* const from = data + column / kPanel * panel_size +
                                static_cast<std::int64_t>(i / cols) * kPanelRow + column % kPanel;
      copy_async<16>(slice, i, inside ? from : data, inside);
    }
    commit_copies();
  }

  __device__ __forceinline__ int samples() const {
    return static_cast<int>(net_.batch - sample_ < kSamples ? net_.batch - sample_ : kSamples);
  }

  __device__ __forceinline__ float extrapolated(int k, float x, float before) const {
    return std::fma(net_.momentum[k], x - before, x);
  }

  // x_k or x_{k-1} in turn.
  __device__ __forceinline__ int history(int k, int s, int i) const {
    return ((k & 1) * kSamples + s) * n_ + i;
  }

  __device__ __forceinline__ void begin() {
    for (int s = 0; s < kSamples; ++s) {
      for (int i = thread_index(); i < n_; i += kThreads) {
        const bool inside = s < samples();
        const std::int64_t at = (sample_ + s) * n_ + i;
        const float x = inside && net_.initial != nullptr ? net_.initial[at] : 0.0f;
        float y = x;
        if (net_.momentum != nullptr) {
          const float before = inside && net_.previous != nullptr ? net_.previous[at] : x;
          history_[history(0, s, i)] = x;
          history_[history(1, s, i)] = before;
          y = extrapolated(0, x, before);
        }
        point_[i * kSamples + s] = net_.heavy_ball ? x : y;
        if (inside && rank_ == 0 && a_.iterates != nullptr) a_.iterates[at] = x;
      }
    }
  }

  __device__ __forceinline__ void end() const {
    for (int s = 0; s < samples(); ++s) {
      for (int i = thread_index(); i < n_; i += kThreads) {
        float x = point_[i * kSamples + s];
        if (net_.momentum != nullptr) x = history_[history(static_cast<int>(net_.n_layers), s, i)];
        a_.codes[(sample_ + s) * n_ + i] = x;
      }
    }
  }

  // put(sample, column, value) for this block's columns of vector (rows, kSamples) times slice.
  template <class Put>
  __device__ __forceinline__ void multiply(Shared<float> vector, Shared<float> slice, int rows,
                                           int all_cols, Put put) const {
    const int cols = slice_cols(all_cols);
    const int strips = cols / kWarp;
    const int shares = kWarps / strips > 0 ? kWarps / strips : 1;
    const int runs = round_up(rows, kRun) / kRun;
    for (int strip = 0; strip < strips; strip += kWarps) {
      const int mine = strip + warp() % strips;
      const int share = warp() / strips;
      if (share < shares && mine < strips) {
        Samples sum{};
        const int end = runs * (share + 1) / shares;
        for (int run = runs * share / shares; run < end; ++run) {
          accumulate(sum, vector, slice, run * kRun, cols, mine * kWarp + lane());
        }
        partial_.as<float>().template put<kSamples>((warp() * kWarp + lane()) * kSamples, sum);
      }
      sync_block();
      const int width = strips - strip < kWarps ? strips - strip : kWarps;
      for (int e = thread_index(); e < width * kWarp * kSamples; e += kThreads) {
        const int col = e / kSamples;
        float total = 0;
        for (int i = 0; i < shares; ++i) {
          total += partial_[((col / kWarp + i * strips) * kWarp + col % kWarp) * kSamples +
                            e % kSamples];
        }
        const int column = rank_ * cols + strip * kWarp + col;
        if (column < all_cols) put(e % kSamples, column, total);
      }
      sync_block();
    }
  }

  __device__ __forceinline__ void accumulate(Samples& sum, Shared<float> vector,
                                             Shared<float> slice, int row, int cols,
                                             int column) const {
    Samples x[kRun];
    bool zero = true;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      x[i] = vector.get<kSamples>((row + i) * kSamples);
#pragma unroll
      for (int s = 0; s < kSamples; ++s) zero = zero && x[i].v[s] == 0.0f;
    }
    if (zero) return;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const float a = slice[(row + i) * cols + column];
#pragma unroll
      for (int s = 0; s < kSamples; ++s) sum.v[s] = std::fma(x[i].v[s], a, sum.v[s]);
    }
  }

  __device__ __forceinline__ void layer(int k) {
    wait_copies<0>();
    sync_block();
    if (net_.factored()) {
      multiply(point_, first_, n_, m_, [&](int s, int j, float sum) {
        if (s < samples()) sum -= net_.measurements[(sample_ + s) * m_ + j];
        for (int to = 0; to < kBlocks; ++to) residual_.on(to)[j * kSamples + s] = sum;
      });
      sync_cluster();
    }
    // The last layer's v may still be read elsewhere, so they alternate.
    turn_ ^= 1;
    const int base = turn_ * kSamples * n_;
    multiply(net_.factored() ? residual_ : point_, net_.factored() ? second_ : first_,
             net_.factored() ? m_ : n_, n_, [&](int s, int i, float sum) {
               if (!net_.factored() && s < samples()) {
                 sum -= net_.linear[k * net_.linear_layer_stride + (sample_ + s) * n_ + i];
               }
               for (int to = 0; to < kBlocks; ++to) direction_.on(to)[base + s * n_ + i] = sum;
             });
    sync_cluster();
    for (int s = 0; s < samples(); ++s) shrink(k, s, base + s * n_);
  }

  __device__ __forceinline__ void shrink(int k, int s, int base) const {
    Row<float> row{net_, k, sample_ + s};
    const bool momentum = net_.momentum != nullptr;
    const auto y = [&](std::int64_t atom) -> float {
      const int i = static_cast<int>(atom);
      if (!momentum) return point_[i * kSamples + s];
      return extrapolated(k, history_[history(k, s, i)], history_[history(k + 1, s, i)]);
    };
    const auto put = [&](std::int64_t atom, float x) {
      const int i = static_cast<int>(atom);
      float following = x;
      if (momentum) {
        history_[history(k + 1, s, i)] = x;
        if (k + 1 < net_.n_layers && !net_.heavy_ball) {
          following = extrapolated(k + 1, x, history_[history(k, s, i)]);
        }
      }
      point_[i * kSamples + s] = following;
      if (rank_ == 0 && a_.iterates != nullptr) {
        a_.iterates[((k + 1) * net_.batch + sample_ + s) * n_ + i] = x;
      }
    };
    const auto v = [&](std::int64_t i) -> float { return direction_[base + static_cast<int>(i)]; };
    forward_row(row, group_, y, v, put);
  }

  const ForwardArguments<float>& a_;
  const Network<float>& net_;
  const Sizes sizes_;
  const int n_, m_, rank_;
  Shared<float> first_ = Shared<float>::at(0, 0);
  Shared<float> second_ = Shared<float>::at(0, 0);
  Shared<float> point_ = Shared<float>::at(0, 0);      // (n, kSamples)
  Shared<float> residual_ = Shared<float>::at(0, 0);   // (m, kSamples)
  Shared<float> direction_ = Shared<float>::at(0, 0);  // two of (kSamples, n)
  Shared<float> history_ = Shared<float>::at(0, 0);    // two of (kSamples, n), with momentum
  Shared<float> partial_ = Shared<float>::at(0, 0);
  BlockGroup group_;
  std::int64_t sample_ = 0;
  int turn_ = 0;
};

template <int kSamples>
__global__ void __launch_bounds__(kThreads, 1)
    cluster_kernel(const __grid_constant__ ForwardArguments<float> a) {
  ClusterTile<kSamples>(a).run();
}

}  // namespace

Plan cluster_plan(const Network<float>& net, const Device& device) {
  Plan plan;
  if (device.cluster_blocks < kBlocks || net.batch > kMostSamples || mixed(net)) return plan;
  const int clusters = std::max(1, device.multiprocessors / kBlocks);
  const int samples = net.batch <= clusters ? 1 : 4;
  const int bytes = samples == 1 ? ClusterTile<1>::bytes(net) : ClusterTile<4>::bytes(net);
  if (bytes > device.shared_bytes) return plan;
  plan.path = Path::cluster;
  plan.samples = samples;
  plan.cluster = kBlocks;
  plan.grid = kBlocks * std::min(clusters, round_up(net.batch, samples) / samples);
  plan.shared_bytes = bytes;
  return plan;
}

Error launch_cluster(const ForwardArguments<float>& a, const Plan& plan, Stream stream) {
  const LaunchShape shape{plan.grid, kThreads, plan.shared_bytes, plan.cluster};
  return plan.samples == 1 ? launch(cluster_kernel<1>, shape, stream, a)
                           : launch(cluster_kernel<4>, shape, stream, a);
}

}  // namespace fastunroll::cuda
