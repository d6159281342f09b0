// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels as plain C++: device pointers, sizes and a stream in, an error message out. No
// torch, no Python, no CUDA header. Nothing is allocated, nothing waits for the device, and every
// call can be captured in a CUDA graph: the caller allocates the results and the workspace.
//
// The same functions exist a second time, compiled for the host on top of `emulate.h`; there the
// pointers are the host's, and the stream is ignored.
//
// Values are not checked here: that would mean waiting for the device. The result does not depend
// on how the blocks are scheduled: no sum is made by atomic additions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fastunroll/problem.h"

namespace fastunroll::cuda {

// Null, or a message that lives as long as the program.
using Error = const char*;

// A cudaStream_t of the current device.
using Stream = void*;

struct Device {
  int multiprocessors = 0;
  int shared_bytes = 0;    // shared memory that one block can have
  int cluster_blocks = 1;  // blocks of one cluster; 1: no clusters
  int major = 0;           // compute capability
  int minor = 0;
};

// The current device.
Error describe(Device* device);

// The elements of the bare shrinkage; the arithmetic is in float, or in double for `float64`.
enum class Type : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

// How a product of float32 matrices is formed; float64 products are always plain.
enum class Precision : int {
  plain = 0,  // multiplications and additions of float32
  split = 1,  // tensor cores, three TF32 products: float32 accuracy
  tf32 = 2,   // tensor cores, one TF32 product: 10 bits of the operands
  mixed = 3,  // tensor cores, factored form: A^T by three BF16 products, W by one; back: as tf32
};

// ---- Bare shrinkage ------------------------------------------------------------------------

// prox(u; t), soft, non-negative, hard or smooth, for contiguous u (rows, cols). The threshold has
// the type of u and, per row and per column, these strides in elements (0: shared).
struct ShrinkProblem {
  Type type = Type::float32;
  const void* u = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const void* threshold = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t col_stride = 0;
  Prox prox = Prox::soft;
};

Error shrink(const ShrinkProblem& problem, void* out, Stream stream);

// grad_u (rows, cols), and grad_threshold contiguous in the shape of t: (), (rows, 1), (cols) or
// (rows, cols); the latter may be null. The workspace belongs to the call until it has run.
std::size_t shrink_backward_workspace(const ShrinkProblem& problem);
Error shrink_backward(const ShrinkProblem& problem, const void* grad, void* grad_u,
                      void* grad_threshold, void* workspace, Stream stream);

// ---- The K layers --------------------------------------------------------------------------

// The recursion of `Problem`, with these differences: the matrices are packed by `pack` below, all
// arrays and the counts `bypass` lie in device memory, the Gram form needs `linear`, and there is
// no objective (it follows from the iterates). Every array is contiguous but for LayerParameter.
template <class T>
struct Network : Problem<T> {
  PackedMatrix<T> dictionary;  // A (m, n); backward pass of the factored form
  Precision precision = Precision::plain;
};

// The layout of a packed matrix (rows, cols): panels of 256 columns, and in each the rows in
// slabs that one stage of the kernels' pipelines takes (product.h); padded with zeros. Mixed
// precision has its own layouts for what its forward pass reads, `dictionary_t` and `weight`; all
// others are plain, also with mixed precision.
enum class Layout : int { plain = 0, split_bf16 = 1, bf16 = 2 };

// Bytes of one packed matrix with elements of `element_bytes`; the value of
// PackedMatrix::layer_stride is this over element_bytes, or 0 for the same matrix in every layer.
std::size_t packed_bytes(std::int64_t rows, std::int64_t cols, int element_bytes, Layout layout);

// Packs `layers` matrices with elements source[layer, row, col] at these strides.
template <class T>
struct PackProblem {
  const T* source = nullptr;
  std::int64_t layers = 1;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t layer_stride = 0;
  std::int64_t row_stride = 0;
  std::int64_t col_stride = 0;
  Layout layout = Layout::plain;
};

template <class T>
Error pack(const PackProblem<T>& problem, void* target, Stream stream);

enum class Path : int {
  none = 0,     // the sizes do not fit: compose the pass of products and of `layer_forward`
  tile = 1,     // a block takes a tile of samples through all layers; the matrices stream by
  cluster = 2,  // few samples: the blocks of a cluster keep the matrices in shared memory
};

// How a pass runs; a function of the problem's sizes, of which pointers are null and of the device.
struct Plan {
  Path path = Path::none;
  int samples = 0;            // of one tile
  int grid = 0;               // blocks
  int cluster = 1;            // blocks of one cluster
  int shared_bytes = 0;       // of one block
  std::int64_t chunk = 0;     // backward: samples that go through the workspace at a time
  std::size_t workspace = 0;  // bytes that the call needs, aligned to 256; can be 0
};

// Outputs: codes, and where not null iterates x_0 .. x_K (K + 1, B, n); the others are not used.
template <class T>
Plan plan_forward(const Network<T>& network, const Device& device);

// On one path and with one precision a sample's result does not depend on its batch, bit for bit.
template <class T>
Error forward(const Network<T>& network, const ForwardOutputs<T>& out, const Plan& plan,
              void* workspace, Stream stream);

// Plans with at most `budget` bytes of workspace where that is possible: a small one means more
// and smaller chunks.
template <class T>
Plan plan_backward(const Network<T>& network, const BackwardArguments<T>& args,
                   const Device& device, std::size_t budget);

// Gradients as `BackwardArguments` says, but those of A and W transposed, without the objective's;
// every gradient that is asked for is overwritten. Factored form: matrices dictionary,
// dictionary_t, weight and weight_t; Gram form: gram and gram_t. The network must be the forward
// pass's, which is run again, as many samples at a time as the workspace holds.
template <class T>
Error backward(const Network<T>& network, const BackwardArguments<T>& args, const Plan& plan,
               void* workspace, Stream stream);

// ---- One layer around products made elsewhere ----------------------------------------------

// The fallback's part of layer k of a network without matrices: rows of v (B, n) in, x_{k+1} out.
//   y = x_k + momentum_k (x_k - x_{k-1}),  u = (skip ? y : 0) - step_k v,  x_{k+1} = prox(u).
// With momentum and without heavy ball, v is the gradient at y, which `extrapolate` writes.
template <class T>
struct LayerArrays {
  const T* codes = nullptr;      // x_k (B, n); null: 0
  const T* previous = nullptr;   // x_{k-1} (B, n); null: x_k
  const T* direction = nullptr;  // v (B, n)
  T* next = nullptr;             // x_{k+1} (B, n); forward: written, backward: read
  T* norm = nullptr;             // ||v|| (B) with a rule; likewise
  T* rank = nullptr;             // (B) with bypass; likewise
};

template <class T>
Error extrapolate(const Network<T>& network, std::int64_t layer, const T* codes, const T* previous,
                  T* y, Stream stream);

template <class T>
Error layer_forward(const Network<T>& network, std::int64_t layer, const LayerArrays<T>& arrays,
                    Stream stream);

// From the gradient of x_{k+1} to those of v, of y and of the layer's parameters. Gradients of the
// parameters as in BackwardArguments: the pointers are those of the whole parameters, and only
// layer k of them is written. Null: not asked for.
template <class T>
struct LayerGradients {
  const T* next = nullptr;  // of x_{k+1} (B, n)
  T* direction = nullptr;   // of v (B, n)
  T* point = nullptr;       // of y by way of u (B, n); may be null
  T* step = nullptr;
  T* threshold = nullptr;
  T* rule_weight = nullptr;
  T* rule_bias = nullptr;
  T* prox_shape = nullptr;
};

template <class T>
std::size_t layer_backward_workspace(const Network<T>& network);

template <class T>
Error layer_backward(const Network<T>& network, std::int64_t layer, const LayerArrays<T>& arrays,
                     const LayerGradients<T>& gradients, void* workspace, Stream stream);

}  // namespace fastunroll::cuda
