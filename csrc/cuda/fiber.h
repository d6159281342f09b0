// SPDX-License-Identifier: Apache-2.0
// Threads of execution that hand over to one another. On x86-64 a switch is a few instructions;
// ucontext, which elsewhere does the same, asks the operating system each time.
#pragma once

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstddef>

namespace fastunroll::cuda::emulate {

class Context {
 public:
  // Runs `main`, which must not return, at the first switch to it.
  void start(char* stack, std::size_t bytes, void (*main)());
  void switch_to(Context& next);

 private:
#if defined(__x86_64__)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_{};
#endif
};

}  // namespace fastunroll::cuda::emulate
