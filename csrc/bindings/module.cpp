// SPDX-License-Identifier: Apache-2.0
// Python module `fastunroll._native`: pointers and sizes in, a status out. The Python side checks
// every shape, dtype and device, allocates every result and keeps the tensors alive. Only `Engine`
// takes arrays: there the call itself is to cost little.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bindings/engine.h"
#include "cpu/kernels.h"
#include "cpu/shrink.h"
#include "cpu/tape.h"
#include "cpu/unrolled.h"
#include "fastunroll/problem.h"

namespace py = pybind11;
using namespace fastunroll;

namespace {

using Address = std::uintptr_t;  // 0: null
using Strides = std::array<std::int64_t, 3>;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

// A problem that owns its small arrays; everything else belongs to the caller.
template <class T>
struct BoundProblem : Problem<T> {
  std::vector<std::int64_t> bypass_counts;
};

template <class T>
PackedMatrix<T> matrix(Address data, std::int64_t rows, std::int64_t cols, bool per_layer) {
  const std::int64_t size = rows * cpu::padded<T>(cols);
  return {pointer<const T>(data), rows, cols, per_layer ? size : 0};
}

template <class T>
LayerMatrices<T> layer_matrices(Address data, const Strides& strides) {
  return {pointer<const T>(data), strides[0], strides[1], strides[2]};
}

template <class T>
void bind_problem(py::module_& m, const char* name) {
  using P = BoundProblem<T>;
  py::class_<P>(m, name, py::module_local())
      .def(py::init([](std::array<std::int64_t, 4> sizes, std::array<Address, 5> matrices,
                       bool gram_per_layer, bool weight_per_layer, std::array<Address, 2> layers,
                       std::array<Strides, 2> layer_strides, std::array<Address, 4> rows,
                       bool linear_per_layer, Address step, Strides step_strides, Address threshold,
                       Strides threshold_strides, std::array<Address, 6> layer, double rule_minimum,
                       double rule_maximum, std::vector<std::int64_t> bypass, int prox, bool skip,
                       bool heavy_ball, bool with_objective, double objective_weight) {
        P p;
        const auto [batch, n_measurements, n_atoms, n_layers] = sizes;
        p.batch = batch;
        p.n_measurements = n_measurements;
        p.n_atoms = n_atoms;
        p.n_layers = n_layers;
        p.gram = matrix<T>(matrices[0], n_atoms, n_atoms, gram_per_layer);
        p.gram_t = matrix<T>(matrices[1], n_atoms, n_atoms, gram_per_layer);
        p.dictionary_t = matrix<T>(matrices[2], n_atoms, n_measurements, false);
        p.weight = matrix<T>(matrices[3], n_measurements, n_atoms, weight_per_layer);
        p.weight_t = matrix<T>(matrices[4], n_atoms, n_measurements, weight_per_layer);
        p.gram_layers = layer_matrices<T>(layers[0], layer_strides[0]);
        p.weight_layers = layer_matrices<T>(layers[1], layer_strides[1]);
        p.linear = pointer<const T>(rows[0]);
        p.linear_layer_stride = linear_per_layer ? batch * n_atoms : 0;
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
        p.error_scale = pointer<const T>(layer[4]);
        p.selection = pointer<const T>(layer[5]);
        p.rule_minimum = static_cast<T>(rule_minimum);
        p.rule_maximum = static_cast<T>(rule_maximum);
        p.bypass_counts = std::move(bypass);
        p.prox = static_cast<Prox>(prox);
        p.skip = skip;
        p.heavy_ball = heavy_ball;
        p.with_objective = with_objective;
        p.objective_weight = static_cast<T>(objective_weight);
        return p;
      }))
      .def(
          "forward",
          [](P& p, Address codes, Address objective, Address iterates, cpu::Tape* tape,
             int threads) {
            p.bypass = p.bypass_counts.empty() ? nullptr : p.bypass_counts.data();
            const ForwardOutputs<T> out{pointer<T>(codes), pointer<T>(objective),
                                        pointer<T>(iterates), tape};
            return static_cast<int>(cpu::unrolled_forward<T>(p, out, threads));
          },
          py::call_guard<py::gil_scoped_release>())
      .def(
          "backward",
          [](P& p, const cpu::Tape* tape, std::array<Address, 3> incoming,
             std::array<Address, 12> outgoing, std::int64_t n_grams, std::int64_t n_weights,
             int threads) {
            p.bypass = p.bypass_counts.empty() ? nullptr : p.bypass_counts.data();
            BackwardArguments<T> a;
            a.tape = tape;
            a.grad_codes = pointer<const T>(incoming[0]);
            a.grad_objective = pointer<const T>(incoming[1]);
            a.grad_iterates = pointer<const T>(incoming[2]);
            T** const targets[] = {&a.linear,       &a.gram,      &a.dictionary, &a.weight,
                                   &a.measurements, &a.initial,   &a.step,       &a.threshold,
                                   &a.rule_weight,  &a.rule_bias, &a.momentum,   &a.prox_shape};
            for (std::size_t i = 0; i < outgoing.size(); ++i) *targets[i] = pointer<T>(outgoing[i]);
            a.n_grams = n_grams;
            a.n_weights = n_weights;
            return static_cast<int>(cpu::unrolled_backward<T>(p, a, threads));
          },
          py::call_guard<py::gil_scoped_release>());
}

template <class T>
void bind_engine(py::module_& m, const char* name) {
  using E = bindings::Engine<T>;
  py::class_<E>(m, name, py::module_local())
      .def(py::init([](const BoundProblem<T>& p, std::int64_t parallel_batch, int threads) {
        return std::make_unique<E>(p, p.bypass_counts, parallel_batch, threads);
      }))
      .def("status", [](const E& engine) { return static_cast<int>(engine.status()); })
      .def("run", &E::run)
      .def(
          "run_rows",
          [](E& engine, std::int64_t batch, Address b, Address codes, int threads) {
            return static_cast<int>(
                engine.run_rows(batch, pointer<const T>(b), pointer<T>(codes), threads));
          },
          py::call_guard<py::gil_scoped_release>());
}

template <class T>
void bind_functions(py::module_& m, const std::string& dtype) {
  m.def(("pack_" + dtype).c_str(),
        [](Address source, std::int64_t layers, std::int64_t rows, std::int64_t cols,
           Strides strides, Address target) {
          return cpu::pack<T>(pointer<const T>(source), layers, rows, cols, strides[0], strides[1],
                              strides[2], pointer<T>(target));
        },
        py::call_guard<py::gil_scoped_release>());
  m.def(
      ("multiply_" + dtype).c_str(),
      [](Address rows, std::int64_t batch, Address packed, std::int64_t layers,
         std::int64_t matrix_rows, std::int64_t matrix_cols, Address out, int threads) {
        return static_cast<int>(cpu::multiply<T>(
            pointer<const T>(rows), batch, matrix<T>(packed, matrix_rows, matrix_cols, layers > 1),
            layers, pointer<T>(out), threads));
      },
      py::call_guard<py::gil_scoped_release>());
  m.def(("gram_" + dtype).c_str(),
        [](Address dictionary_t, Address dictionary, std::int64_t m, std::int64_t n, Address out,
           int threads) {
          return static_cast<int>(cpu::gram<T>(matrix<T>(dictionary_t, n, m, false),
                                               matrix<T>(dictionary, m, n, false), pointer<T>(out),
                                               threads));
        },
        py::call_guard<py::gil_scoped_release>());
  m.def(("shrink_" + dtype).c_str(),
        [](Address u, std::int64_t rows, std::int64_t cols, Address threshold, bool per_sample,
           bool per_atom, int prox, Address out, int threads) {
          const cpu::ShrinkProblem<T> p{pointer<const T>(u),         rows,       cols,
                                        pointer<const T>(threshold), per_sample, per_atom,
                                        static_cast<Prox>(prox)};
          return static_cast<int>(cpu::shrink<T>(p, pointer<T>(out), threads));
        },
        py::call_guard<py::gil_scoped_release>());
  m.def(("shrink_backward_" + dtype).c_str(),
        [](Address grad, Address u, std::int64_t rows, std::int64_t cols, Address threshold,
           bool per_sample, bool per_atom, int prox, Address grad_u, Address grad_threshold,
           int threads) {
          const cpu::ShrinkProblem<T> p{pointer<const T>(u),         rows,       cols,
                                        pointer<const T>(threshold), per_sample, per_atom,
                                        static_cast<Prox>(prox)};
          return static_cast<int>(cpu::shrink_backward<T>(
              p, pointer<const T>(grad), pointer<T>(grad_u), pointer<T>(grad_threshold), threads));
        },
        py::call_guard<py::gil_scoped_release>());
}

}  // namespace

PYBIND11_MODULE(_native, m, py::mod_gil_not_used()) {
  if (const char* error = cpu::isa_error()) throw py::import_error(error);
  py::class_<cpu::Tape>(m, "Tape", py::module_local())
      .def(py::init<>())
      .def_property_readonly("nbytes", &cpu::Tape::bytes);
  bind_problem<float>(m, "Problem_f32");
  bind_problem<double>(m, "Problem_f64");
  bind_engine<float>(m, "Engine_f32");
  bind_engine<double>(m, "Engine_f64");
  bind_functions<float>(m, "f32");
  bind_functions<double>(m, "f64");
  m.attr("block_bytes") = cpu::kBlockBytes;
  // A hint: matrices on huge pages spare the kernels most address translations, and their lines are
  // spread evenly over the sets of a cache.
  m.def("prefer_huge_pages", [](Address start, std::size_t bytes) {
#if defined(__linux__)
    madvise(reinterpret_cast<void*>(start), bytes, MADV_HUGEPAGE);
#else
    (void)start, (void)bytes;
#endif
  });
  m.def("build_info", [] {
    py::dict info;
    info["isa"] = cpu::active_kernels().isa;
    std::vector<std::string> supported;
    for (auto table = cpu::supported_kernels(); *table != nullptr; ++table) {
      supported.emplace_back((*table)->isa);
    }
    info["supported_isas"] = supported;
#if defined(_OPENMP)
    info["openmp"] = true;
#else
    info["openmp"] = false;
#endif
    info["compiler"] = FASTUNROLL_COMPILER;
    return info;
  });
}
