// SPDX-License-Identifier: Apache-2.0
// Python module `fastunroll._cuda`: device addresses, sizes and a stream in, None or an error
// message out. The Python side checks every shape, dtype and device, makes the device current,
// allocates every result and workspace and keeps the tensors alive.
//
// The tests build the same file on the kernels as they are compiled for the host.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda/api.h"
#include "fastunroll/problem.h"

namespace py = pybind11;
using namespace fastunroll;

namespace {

using Address = std::uintptr_t;  // 0: null
using Strides = std::array<std::int64_t, 3>;
using cuda::Error;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

cuda::Stream stream_of(Address address) { return pointer<void>(address); }

template <class T>
PackedMatrix<T> matrix(Address data, std::int64_t rows, std::int64_t cols, bool per_layer,
                       cuda::Layout layout = cuda::Layout::plain) {
  const std::size_t bytes = cuda::packed_bytes(rows, cols, sizeof(T), layout);
  return {pointer<const T>(data), rows, cols,
          per_layer ? static_cast<std::int64_t>(bytes / sizeof(T)) : 0};
}

template <class T>
cuda::Network<T> make_network(std::array<std::int64_t, 4> sizes, std::array<Address, 6> matrices,
                              bool gram_per_layer, bool weight_per_layer,
                              std::array<Address, 4> rows, bool linear_per_layer, Address step,
                              Strides step_strides, Address threshold, Strides threshold_strides,
                              std::array<Address, 4> layer, double rule_minimum,
                              double rule_maximum, Address bypass, int prox, bool skip,
                              bool heavy_ball, int precision) {
  const auto [batch, m, n, n_layers] = sizes;
  cuda::Network<T> p;
  p.batch = batch;
  p.n_measurements = m;
  p.n_atoms = n;
  p.n_layers = n_layers;
  p.precision = static_cast<cuda::Precision>(precision);
  const bool mixed = p.precision == cuda::Precision::mixed;
  p.gram = matrix<T>(matrices[0], n, n, gram_per_layer);
  p.gram_t = matrix<T>(matrices[1], n, n, gram_per_layer);
  p.dictionary = matrix<T>(matrices[2], m, n, false);
  p.dictionary_t = matrix<T>(matrices[3], n, m, false);
  p.weight = matrix<T>(matrices[4], m, n, weight_per_layer,
                       mixed ? cuda::Layout::bf16 : cuda::Layout::plain);
  p.weight_t = matrix<T>(matrices[5], n, m, weight_per_layer);
  p.linear = pointer<const T>(rows[0]);
  p.linear_layer_stride = linear_per_layer ? batch * n : 0;
  p.measurements = pointer<const T>(rows[1]);
  p.initial = pointer<const T>(rows[2]);
  p.previous = pointer<const T>(rows[3]);
  p.step = {pointer<const T>(step), step_strides[0], step_strides[1], step_strides[2]};
  p.threshold = {pointer<const T>(threshold), threshold_strides[0], threshold_strides[1],
                 threshold_strides[2]};
  p.rule_weight = pointer<const T>(layer[0]);
  p.rule_bias = pointer<const T>(layer[1]);
  p.momentum = pointer<const T>(layer[2]);
  p.prox_shape = pointer<const T>(layer[3]);
  p.rule_minimum = static_cast<T>(rule_minimum);
  p.rule_maximum = static_cast<T>(rule_maximum);
  p.bypass = pointer<const std::int64_t>(bypass);
  p.prox = static_cast<Prox>(prox);
  p.skip = skip;
  p.heavy_ball = heavy_ball;
  return p;
}

template <class T>
BackwardArguments<T> backward_arguments(std::array<Address, 2> incoming,
                                        std::array<Address, 12> outgoing, std::int64_t n_grams,
                                        std::int64_t n_weights) {
  BackwardArguments<T> a;
  a.grad_codes = pointer<const T>(incoming[0]);
  a.grad_iterates = pointer<const T>(incoming[1]);
  T** const targets[] = {&a.linear,       &a.gram,      &a.dictionary, &a.weight,
                         &a.measurements, &a.initial,   &a.step,       &a.threshold,
                         &a.rule_weight,  &a.rule_bias, &a.momentum,   &a.prox_shape};
  for (std::size_t i = 0; i < outgoing.size(); ++i) *targets[i] = pointer<T>(outgoing[i]);
  a.n_grams = n_grams;
  a.n_weights = n_weights;
  return a;
}

template <class T>
cuda::LayerArrays<T> layer_arrays(std::array<Address, 6> a) {
  return {pointer<const T>(a[0]), pointer<const T>(a[1]), pointer<const T>(a[2]),
          pointer<T>(a[3]),       pointer<T>(a[4]),       pointer<T>(a[5])};
}

template <class T>
cuda::LayerGradients<T> layer_gradients(std::array<Address, 8> a) {
  return {pointer<const T>(a[0]), pointer<T>(a[1]), pointer<T>(a[2]), pointer<T>(a[3]),
          pointer<T>(a[4]),       pointer<T>(a[5]), pointer<T>(a[6]), pointer<T>(a[7])};
}

template <class T>
void bind_network(py::module_& m, const std::string& dtype) {
  using N = cuda::Network<T>;
  using Release = py::call_guard<py::gil_scoped_release>;
  py::class_<N>(m, ("Network_" + dtype).c_str(), py::module_local())
      .def(py::init(&make_network<T>))
      // A plan only asks which matrices there are, so they can be packed after it.
      .def("place_matrices",
           [](N& p, std::array<Address, 6> matrices) {
             PackedMatrix<T>* const places[] = {&p.gram,         &p.gram_t, &p.dictionary,
                                                &p.dictionary_t, &p.weight, &p.weight_t};
             for (std::size_t i = 0; i < matrices.size(); ++i) {
               places[i]->data = pointer<const T>(matrices[i]);
             }
           })
      .def("plan_forward",
           [](const N& network, const cuda::Device& device) {
             return cuda::plan_forward<T>(network, device);
           })
      .def(
          "forward",
          [](const N& network, Address codes, Address iterates, const cuda::Plan& plan,
             Address workspace, Address stream) {
            const ForwardOutputs<T> out{pointer<T>(codes), nullptr, pointer<T>(iterates), nullptr};
            return cuda::forward<T>(network, out, plan, pointer<void>(workspace),
                                    stream_of(stream));
          },
          Release())
      .def("plan_backward",
           [](const N& network, std::array<Address, 2> incoming, std::array<Address, 12> outgoing,
              std::int64_t n_grams, std::int64_t n_weights, const cuda::Device& device,
              std::size_t budget) {
             const auto a = backward_arguments<T>(incoming, outgoing, n_grams, n_weights);
             return cuda::plan_backward<T>(network, a, device, budget);
           })
      .def(
          "backward",
          [](const N& network, std::array<Address, 2> incoming, std::array<Address, 12> outgoing,
             std::int64_t n_grams, std::int64_t n_weights, const cuda::Plan& plan,
             Address workspace, Address stream) {
            const auto a = backward_arguments<T>(incoming, outgoing, n_grams, n_weights);
            return cuda::backward<T>(network, a, plan, pointer<void>(workspace), stream_of(stream));
          },
          Release())
      .def(
          "extrapolate",
          [](const N& network, std::int64_t layer, Address codes, Address previous, Address y,
             Address stream) {
            return cuda::extrapolate<T>(network, layer, pointer<const T>(codes),
                                        pointer<const T>(previous), pointer<T>(y),
                                        stream_of(stream));
          },
          Release())
      .def(
          "layer_forward",
          [](const N& network, std::int64_t layer, std::array<Address, 6> arrays, Address stream) {
            return cuda::layer_forward<T>(network, layer, layer_arrays<T>(arrays),
                                          stream_of(stream));
          },
          Release())
      .def("layer_backward_workspace",
           [](const N& network) { return cuda::layer_backward_workspace<T>(network); })
      .def(
          "layer_backward",
          [](const N& network, std::int64_t layer, std::array<Address, 6> arrays,
             std::array<Address, 8> gradients, Address workspace, Address stream) {
            return cuda::layer_backward<T>(network, layer, layer_arrays<T>(arrays),
                                           layer_gradients<T>(gradients), pointer<void>(workspace),
                                           stream_of(stream));
          },
          Release());
  m.def(("pack_" + dtype).c_str(),
        [](Address source, std::int64_t layers, std::int64_t rows, std::int64_t cols,
           Strides strides, int layout, Address target, Address stream) {
          const cuda::PackProblem<T> problem{pointer<const T>(source),
                                             layers,
                                             rows,
                                             cols,
                                             strides[0],
                                             strides[1],
                                             strides[2],
                                             static_cast<cuda::Layout>(layout)};
          return cuda::pack<T>(problem, pointer<void>(target), stream_of(stream));
        },
        Release());
}

// Sizes of u, then the strides of the threshold: (rows, cols, per row, per column).
cuda::ShrinkProblem shrink_problem(int type, Address u, std::array<std::int64_t, 4> sizes,
                                   Address threshold, int prox) {
  return {static_cast<cuda::Type>(type),
          pointer<const void>(u),
          sizes[0],
          sizes[1],
          pointer<const void>(threshold),
          sizes[2],
          sizes[3],
          static_cast<Prox>(prox)};
}

void bind_shrink(py::module_& m) {
  using Sizes = std::array<std::int64_t, 4>;
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def(
      "shrink",
      [](int type, Address u, Sizes sizes, Address threshold, int prox, Address out,
         Address stream) {
        const auto problem = shrink_problem(type, u, sizes, threshold, prox);
        return cuda::shrink(problem, pointer<void>(out), stream_of(stream));
      },
      Release());
  m.def("shrink_backward_workspace", [](int type, Sizes sizes, int prox) {
    return cuda::shrink_backward_workspace(shrink_problem(type, 0, sizes, 0, prox));
  });
  m.def(
      "shrink_backward",
      [](int type, Address u, Sizes sizes, Address threshold, int prox, Address grad,
         Address grad_u, Address grad_threshold, Address workspace, Address stream) {
        const auto problem = shrink_problem(type, u, sizes, threshold, prox);
        return cuda::shrink_backward(problem, pointer<const void>(grad), pointer<void>(grad_u),
                                     pointer<void>(grad_threshold), pointer<void>(workspace),
                                     stream_of(stream));
      },
      Release());
}

}  // namespace

PYBIND11_MODULE(FASTUNROLL_CUDA_MODULE, m, py::mod_gil_not_used()) {
  py::class_<cuda::Device>(m, "Device", py::module_local())
      .def(py::init<int, int, int, int, int>())
      .def_readonly("multiprocessors", &cuda::Device::multiprocessors)
      .def_readonly("shared_bytes", &cuda::Device::shared_bytes)
      .def_readonly("cluster_blocks", &cuda::Device::cluster_blocks)
      .def_readonly("major", &cuda::Device::major)
      .def_readonly("minor", &cuda::Device::minor);
  py::class_<cuda::Plan>(m, "Plan", py::module_local())
      .def_property_readonly("path", [](const cuda::Plan& p) { return static_cast<int>(p.path); })
      .def_readonly("samples", &cuda::Plan::samples)
      .def_readonly("grid", &cuda::Plan::grid)
      .def_readonly("chunk", &cuda::Plan::chunk)
      .def_readonly("workspace", &cuda::Plan::workspace);
  bind_network<float>(m, "f32");
  bind_network<double>(m, "f64");
  bind_shrink(m);
  m.def("packed_bytes", [](std::int64_t rows, std::int64_t cols, int element_bytes, int layout) {
    return cuda::packed_bytes(rows, cols, element_bytes, static_cast<cuda::Layout>(layout));
  });
  m.def("describe", [] {
    cuda::Device device;
    if (const Error error = cuda::describe(&device)) throw std::runtime_error(error);
    return device;
  });
  m.attr("compiler") = FASTUNROLL_NVCC;
  m.attr("architectures") = FASTUNROLL_ARCHITECTURES;
}
