// SPDX-License-Identifier: Apache-2.0
#include "cuda/forward.h"

namespace fastunroll::cuda {

template <class T>
Error forward(const Network<T>& net, const ForwardOutputs<T>& out, const Trace<T>* trace,
              const Plan& plan, void* workspace, Stream stream) {
  const ForwardArguments<T> a{net, out.codes, out.iterates, trace != nullptr ? *trace : Trace<T>{},
                              static_cast<T*>(workspace)};
  if (plan.path == Path::none) return "the sizes do not fit a kernel: compose the layers";
  if (!net.factored() && net.linear == nullptr) return "the Gram form needs linear";
  if constexpr (sizeof(T) == 8) {
    return launch_forward<T, Precision::plain>(a, plan, stream);
  } else {
    if (plan.path == Path::cluster) return launch_cluster(a, plan, stream);
    switch (net.precision) {
      case Precision::plain:
        return launch_forward<T, Precision::plain>(a, plan, stream);
      case Precision::tf32:
        return launch_forward<T, Precision::tf32>(a, plan, stream);
      case Precision::mixed:
        if (net.factored()) return launch_forward<T, Precision::mixed>(a, plan, stream);
        [[fallthrough]];
      default:
        return launch_forward<T, Precision::split>(a, plan, stream);
    }
  }
}

template Error forward<float>(const Network<float>&, const ForwardOutputs<float>&,
                              const Trace<float>*, const Plan&, void*, Stream);
template Error forward<double>(const Network<double>&, const ForwardOutputs<double>&,
                               const Trace<double>*, const Plan&, void*, Stream);

}  // namespace fastunroll::cuda
