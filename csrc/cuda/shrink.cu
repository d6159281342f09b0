// SPDX-License-Identifier: Apache-2.0
// The bare shrinkage and its derivatives: one pass over memory in 16-byte accesses, kFlight of them
// under way at a time. Forward 2, backward 3 times the bytes of u; what else is moved is the
// threshold and the partial sums of its gradient, one per block.
#include <algorithm>

#include "cuda/elements.h"
#include "cuda/prox.h"
#include "cuda/reduce.h"

namespace fastunroll::cuda {
namespace {

constexpr int kThreads = kSumThreads;
constexpr int kFlight = 4;
constexpr std::int64_t kMaxBlocks = 2048;
constexpr std::int64_t kSlabRows = 256;  // rows whose column sums one block makes

template <class E>
struct Arguments {
  const E* u;
  const E* threshold;
  const E* grad;     // backward
  E* out;            // x, or grad_u
  E* full_gradient;  // of a threshold of the shape of u, or null
  double* partials;  // sums of the threshold's gradient, or null
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t row_stride;
  std::int64_t col_stride;
  Prox prox;
};

// One element: x, or with a gradient grad_u and the threshold's term.
template <class E, bool kBackward>
__device__ __forceinline__ Wide<E> element(const Arguments<E>& a, Wide<E> u, Wide<E> threshold,
                                           Wide<E> grad, Wide<E>* term) {
  const Wide<E> no_shape = 0;
  if (!kBackward) return prox_value(u, threshold, a.prox, no_shape, false);
  const auto slopes = prox_slopes(u, threshold, a.prox, no_shape, false);
  // Where the slope is 0 the gradient is 0, whatever came in.
  *term = slopes.threshold == 0 ? Wide<E>(0) : grad * slopes.threshold;
  return slopes.size == 0 ? Wide<E>(0) : grad * slopes.size;
}

// Elements [first, first + kVector), of one row unless the threshold is shared.
template <class E, int kVector, bool kBackward>
__device__ __forceinline__ Wide<E> pack(const Arguments<E>& a, const Pack<E, kVector>& u,
                                        const Pack<E, kVector>& grad, std::int64_t first,
                                        Pack<E, kVector>* out) {
  std::int64_t at = 0;
  if (a.row_stride != 0 || a.col_stride != 0) {
    at = first / a.cols * a.row_stride + first % a.cols * a.col_stride;
  }
  Wide<E> sum = 0;
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    Wide<E> term = 0;
    const Wide<E> threshold = widen(a.threshold[at + i * a.col_stride]);
    out->v[i] =
        narrow<E>(element<E, kBackward>(a, widen(u.v[i]), threshold, widen(grad.v[i]), &term));
    if (kBackward && a.full_gradient != nullptr) a.full_gradient[first + i] = narrow<E>(term);
    sum += term;
  }
  return sum;
}

// All elements in their order. Backward: a sum per block where `partials` is given.
template <class E, int kVector, bool kBackward>
__global__ void __launch_bounds__(kThreads, 1) flat_kernel(const Arguments<E> a) {
  using P = Pack<E, kVector>;
  const std::int64_t total = a.rows * a.cols;
  const std::int64_t packs = total / kVector;
  const std::int64_t stride = static_cast<std::int64_t>(block_count()) * kThreads;
  const std::int64_t start = static_cast<std::int64_t>(block_index()) * kThreads + thread_index();
  double sum = 0;
  P out;
  for (std::int64_t first = start; first < packs; first += kFlight * stride) {
    P u[kFlight], grad[kFlight];
#pragma unroll
    for (int f = 0; f < kFlight; ++f) {
      const std::int64_t at = (first + f * stride) * kVector;
      if (first + f * stride >= packs) break;
      u[f] = load<kVector>(a.u + at);
      grad[f] = kBackward ? load<kVector>(a.grad + at) : u[f];
    }
    // The packs move up so that the code is one pack's; see Part::for_each_pair.
#pragma unroll 1
    for (int f = 0; f < kFlight; ++f) {
      const std::int64_t at = (first + f * stride) * kVector;
      if (first + f * stride >= packs) break;
      sum += static_cast<double>(pack<E, kVector, kBackward>(a, u[0], grad[0], at, &out));
      store(a.out + at, out);
#pragma unroll
      for (int i = 0; i < kFlight - 1; ++i) {
        u[i] = u[i + 1];
        grad[i] = grad[i + 1];
      }
    }
  }
  // What is left over of a vector.
  const std::int64_t at = packs * kVector + start;
  if (at < total) {
    Pack<E, 1> one;
    sum += static_cast<double>(pack<E, 1, kBackward>(
        a, load<1>(a.u + at), load<1>(kBackward ? a.grad + at : a.u + at), at, &one));
    store(a.out + at, one);
  }
  if (!kBackward || a.partials == nullptr) return;
  sum = block_sum(sum, SharedLayout().take<double>(kSumWarps));
  if (thread_index() == 0) a.partials[block_index()] = sum;
}

// A block per row: the sum of its threshold's gradient.
template <class E, int kVector>
__global__ void __launch_bounds__(kThreads, 1) rows_kernel(const Arguments<E> a) {
  Pack<E, kVector> out;
  double sum = 0;
  const std::int64_t row = block_index() * a.cols;
  for (std::int64_t c = thread_index() * kVector; c < a.cols; c += kThreads * kVector) {
    const auto u = load<kVector>(a.u + row + c);
    const auto grad = load<kVector>(a.grad + row + c);
    sum += static_cast<double>(pack<E, kVector, true>(a, u, grad, row + c, &out));
    store(a.out + row + c, out);
  }
  sum = block_sum(sum, SharedLayout().take<double>(kSumWarps));
  if (thread_index() == 0) a.partials[block_index()] = sum;
}

// A block has kSlabRows rows of 32 packs of columns; its warps walk every eighth row.
template <class E, int kVector>
__global__ void __launch_bounds__(kThreads, 1) columns_kernel(const Arguments<E> a) {
  constexpr int kCols = kWarp * kVector;
  const std::int64_t groups = (a.cols + kCols - 1) / kCols;
  const std::int64_t slab = block_index() / groups;
  const std::int64_t col = block_index() % groups * kCols + lane() * kVector;
  const std::int64_t end = (slab + 1) * kSlabRows < a.rows ? (slab + 1) * kSlabRows : a.rows;
  double sums[kVector] = {};
  if (col < a.cols) {
    for (std::int64_t r = slab * kSlabRows + warp(); r < end; r += kSumWarps) {
      const std::int64_t at = r * a.cols + col;
      const auto u = load<kVector>(a.u + at);
      const auto grad = load<kVector>(a.grad + at);
      Pack<E, kVector> out;
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        Wide<E> term = 0;
        const Wide<E> threshold = widen(a.threshold[(col + i) * a.col_stride]);
        out.v[i] =
            narrow<E>(element<E, true>(a, widen(u.v[i]), threshold, widen(grad.v[i]), &term));
        sums[i] += static_cast<double>(term);
      }
      store(a.out + at, out);
    }
  }
  const Shared<double> parts = SharedLayout().take<double>(kSumWarps * kCols);
#pragma unroll
  for (int i = 0; i < kVector; ++i) parts[warp() * kCols + lane() * kVector + i] = sums[i];
  sync_block();
  for (int c = thread_index(); c < kCols; c += kThreads) {
    const std::int64_t at = block_index() % groups * kCols + c;
    if (at >= a.cols) continue;
    double sum = 0;
    for (int w = 0; w < kSumWarps; ++w) sum += parts[w * kCols + c];
    a.partials[slab * a.cols + at] = sum;
  }
}

enum class Shape { shared, rows, cols, full };

Shape shape_of(const ShrinkProblem& p) {
  if (p.row_stride != 0) return p.col_stride != 0 ? Shape::full : Shape::rows;
  return p.col_stride != 0 ? Shape::cols : Shape::shared;
}

std::int64_t slabs(const ShrinkProblem& p) { return (p.rows + kSlabRows - 1) / kSlabRows; }

std::int64_t flat_blocks(std::int64_t elements, int vector) {
  const std::int64_t per_block = static_cast<std::int64_t>(kThreads) * vector * kFlight;
  return elements == 0 ? 0 : std::min(elements / per_block + 1, kMaxBlocks);
}

// Whether rows can be read 16 bytes at a time.
template <class E>
bool aligned(const ShrinkProblem& p, std::initializer_list<const void*> arrays) {
  for (const void* array : arrays) {
    if (reinterpret_cast<std::uintptr_t>(array) % 16 != 0) return false;
  }
  return shape_of(p) == Shape::shared || p.cols % kPack<E> == 0;
}

template <class E>
Arguments<E> arguments(const ShrinkProblem& p, const void* grad, void* out) {
  return {static_cast<const E*>(p.u),
          static_cast<const E*>(p.threshold),
          static_cast<const E*>(grad),
          static_cast<E*>(out),
          nullptr,
          nullptr,
          p.rows,
          p.cols,
          p.row_stride,
          p.col_stride,
          p.prox};
}

template <class E, int kVector>
Error run_forward(const ShrinkProblem& p, void* out, Stream stream) {
  return launch(flat_kernel<E, kVector, false>, {flat_blocks(p.rows * p.cols, kVector), kThreads},
                stream, arguments<E>(p, nullptr, out));
}

template <class E, int kVector>
Error run_backward(const ShrinkProblem& p, const void* grad, void* grad_u, E* grad_threshold,
                   double* partials, Stream stream) {
  Arguments<E> a = arguments<E>(p, grad, grad_u);
  const Shape shape = grad_threshold == nullptr ? Shape::full : shape_of(p);
  if (shape == Shape::full) {
    a.full_gradient = grad_threshold;
  } else {
    a.partials = partials;
  }
  if (shape == Shape::rows) {
    const Error error =
        launch(rows_kernel<E, kVector>, {p.rows, kThreads, kBlockSumBytes}, stream, a);
    if (error != nullptr) return error;
    return sum_rows(partials, p.rows, 1, grad_threshold, stream);
  }
  if (shape == Shape::cols) {
    constexpr int kCols = kWarp * kVector;
    const std::int64_t grid = slabs(p) * ((p.cols + kCols - 1) / kCols);
    const int bytes = SharedLayout::bytes<double>(kSumWarps * kCols);
    const Error error = launch(columns_kernel<E, kVector>, {grid, kThreads, bytes}, stream, a);
    if (error != nullptr) return error;
    return sum_columns(partials, 1, slabs(p), p.cols, grad_threshold, false, stream);
  }
  const std::int64_t blocks = flat_blocks(p.rows * p.cols, kVector);
  const Error error =
      launch(flat_kernel<E, kVector, true>, {blocks, kThreads, kBlockSumBytes}, stream, a);
  if (error != nullptr || shape == Shape::full) return error;
  return sum_rows(partials, 1, blocks, grad_threshold, stream);
}

// run(E) for the problem's type of elements.
template <class Run>
Error with_type(Type type, Run run) {
  switch (type) {
    case Type::float32:
      return run(float{});
    case Type::float64:
      return run(double{});
    case Type::float16:
      return run(Half{});
    default:
      return run(Bfloat16{});
  }
}

}  // namespace

Error shrink(const ShrinkProblem& p, void* out, Stream stream) {
  return with_type(p.type, [&](auto zero) {
    using E = decltype(zero);
    return aligned<E>(p, {p.u, out}) ? run_forward<E, kPack<E>>(p, out, stream)
                                     : run_forward<E, 1>(p, out, stream);
  });
}

std::size_t shrink_backward_workspace(const ShrinkProblem& p) {
  std::int64_t sums = kMaxBlocks;
  if (shape_of(p) == Shape::rows) sums = p.rows;
  if (shape_of(p) == Shape::cols) sums = slabs(p) * p.cols;
  return static_cast<std::size_t>(sums) * sizeof(double);
}

Error shrink_backward(const ShrinkProblem& p, const void* grad, void* grad_u, void* grad_threshold,
                      void* workspace, Stream stream) {
  return with_type(p.type, [&](auto zero) {
    using E = decltype(zero);
    auto* const target = static_cast<E*>(grad_threshold);
    auto* const partials = static_cast<double*>(workspace);
    return aligned<E>(p, {p.u, grad, grad_u})
               ? run_backward<E, kPack<E>>(p, grad, grad_u, target, partials, stream)
               : run_backward<E, 1>(p, grad, grad_u, target, partials, stream);
  });
}

}  // namespace fastunroll::cuda
