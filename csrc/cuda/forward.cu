// SPDX-License-Identifier: Apache-2.0
#include "cuda/forward.h"

namespace fastunroll::cuda {

template <class T>
Error launch_forward(const ForwardArguments<T>& a, const Plan& plan, Stream stream) {
  return with_tiles_of<T>(plan, [&](auto samples) {
    return launch_forward_tiles<T, decltype(samples)::value>(a, plan, stream);
  });
}

template <class T>
Error forward(const Network<T>& net, const ForwardOutputs<T>& out, const Plan& plan,
              void* workspace, Stream stream) {
  const ForwardArguments<T> a{net, out.codes, out.iterates, {}, static_cast<T*>(workspace)};
  if (plan.path == Path::none) return "the sizes do not fit a kernel: compose the layers";
  if (!net.factored() && net.linear == nullptr) return "the Gram form needs linear";
  if constexpr (sizeof(T) == 4) {
    if (plan.path == Path::cluster) return launch_cluster(a, plan, stream);
  }
  return launch_forward(a, plan, stream);
}

#define INSTANTIATE(T)                                                                       \
  template Error launch_forward<T>(const ForwardArguments<T>&, const Plan&, Stream);         \
  template Error forward<T>(const Network<T>&, const ForwardOutputs<T>&, const Plan&, void*, \
                            Stream);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace fastunroll::cuda
