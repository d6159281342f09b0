// SPDX-License-Identifier: Apache-2.0
// Which kernel takes a problem, in what tiles. Pure functions of sizes, and the device's numbers.
#include <algorithm>

#include "cuda/backward.h"
#include "cuda/cluster.h"
#include "cuda/forward.h"
#include "cuda/tile.h"

namespace fastunroll::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::int64_t bytes) {
  return (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Samples of a tile, or 0 where none fits. A tile costs its arithmetic, which grows with its
// samples, and the stream of the matrices, which 16 samples' arithmetic hides at best; tiles run
// in waves of one per multiprocessor. In float64 16 samples hide it, so there are no larger ones.
template <class T>
int tile_samples(const Network<T>& net, const Device& device, bool bf16) {
  int best = 0, largest = 0;
  std::int64_t least = 0;
  for (const int samples : {16, 32, 64}) {
    if (sizeof(T) == 8 && samples > 16) continue;
    const int bytes = tile_bytes<T>(samples, net.n_atoms, net.n_measurements, net.factored(), bf16);
    if (bytes > device.shared_bytes) continue;
    largest = samples;
    const std::int64_t waves = ceil_div(ceil_div(net.batch, samples), device.multiprocessors);
    const std::int64_t cost = waves * (samples + 16);
    if (best == 0 || cost < least) {
      best = samples;
      least = cost;
    }
  }
  // Many tiles of 16 samples take longer than products that cuBLAS makes layer by layer: they are
  // bound by L2, or in float64 make no use of tensor cores.
  const bool crowded = net.batch > 32 * static_cast<std::int64_t>(device.multiprocessors);
  return largest == 16 && crowded ? 0 : best;
}

template <class T>
Plan tile_plan(const Network<T>& net, const Device& device, bool bf16) {
  Plan plan;
  plan.samples = tile_samples(net, device, bf16);
  if (plan.samples == 0) return plan;
  plan.path = Path::tile;
  plan.shared_bytes =
      tile_bytes<T>(plan.samples, net.n_atoms, net.n_measurements, net.factored(), bf16);
  plan.grid = static_cast<int>(
      std::min<std::int64_t>(ceil_div(net.batch, plan.samples), device.multiprocessors));
  return plan;
}

}  // namespace

template <class T>
Plan plan_forward(const Network<T>& net, const Device& device) {
  if (sizeof(T) == 4) {
    const Plan plan = cluster_plan(net, device);
    if (plan.path == Path::cluster) return plan;
  }
  Plan plan = tile_plan(net, device, mixed(net));
  if (plan.path == Path::none || !deferred(net)) return plan;
  const std::int64_t slots = net.momentum != nullptr ? 3 : 1;
  plan.workspace = aligned(slots * plan.grid * plan.samples * trace_row(net.n_atoms) *
                           static_cast<std::int64_t>(sizeof(T)));
  return plan;
}

template <class T>
Plan plan_backward(const Network<T>& net, const BackwardArguments<T>& args, const Device& device,
                   std::size_t budget) {
  // The rows for bfloat16 are the longer ones, so the forward pass of a chunk fits as well.
  Plan plan = tile_plan(net, device, mixed(net));
  if (plan.path == Path::none) return plan;
  const std::size_t fixed = backward_workspace(net, args, plan, 0);
  const std::size_t tile = backward_workspace(net, args, plan, plan.samples) - fixed;
  const auto tiles = static_cast<std::int64_t>(budget > fixed ? (budget - fixed) / tile : 0);
  const std::int64_t chunk = std::max<std::int64_t>(tiles, 1) * plan.samples;
  // Chunks of the same size, in whole tiles.
  const std::int64_t chunks = ceil_div(net.batch, chunk);
  plan.chunk = std::min(
      net.batch, static_cast<std::int64_t>(round_up(ceil_div(net.batch, chunks), plan.samples)));
  plan.workspace = backward_workspace(net, args, plan, plan.chunk);
  return plan;
}

#define INSTANTIATE(T)                                                                          \
  template Plan plan_forward<T>(const Network<T>&, const Device&);                              \
  template Plan plan_backward<T>(const Network<T>&, const BackwardArguments<T>&, const Device&, \
                                 std::size_t);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastunroll::cuda
