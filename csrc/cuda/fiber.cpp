// SPDX-License-Identifier: Apache-2.0
#include "cuda/fiber.h"

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes)
#endif

#if defined(__x86_64__)
// void fastunroll_switch(void** save_stack_pointer, void* next_stack_pointer): the registers that
// a call must preserve wait on the stack.
asm(R"(
.text
.local fastunroll_switch
.type fastunroll_switch, @function
fastunroll_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastunroll_switch, .-fastunroll_switch
)");
extern "C" void fastunroll_switch(void**, void*);
#endif

namespace fastunroll::cuda::emulate {

#if defined(__x86_64__)

void Context::start(char* stack, std::size_t bytes, void (*main)()) {
  // The last thread on this stack never returned from its calls.
  ASAN_UNPOISON_MEMORY_REGION(stack, bytes);
  constexpr int kRegisters = 6;
  const auto end = reinterpret_cast<std::uintptr_t>(stack + bytes) / 16 * 16;
  // As after a call: `main` finds the stack 8 bytes off a multiple of 16.
  auto* const top = reinterpret_cast<void**>(end) - 2 - kRegisters;
  for (int i = 0; i < kRegisters; ++i) top[i] = nullptr;
  top[kRegisters] = reinterpret_cast<void*>(main);
  stack_pointer_ = top;
}

void Context::switch_to(Context& next) { fastunroll_switch(&stack_pointer_, next.stack_pointer_); }

#else

void Context::start(char* stack, std::size_t bytes, void (*main)()) {
  ASAN_UNPOISON_MEMORY_REGION(stack, bytes);
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  makecontext(&context_, main, 0);
}

void Context::switch_to(Context& next) { swapcontext(&context_, &next.context_); }

#endif

}  // namespace fastunroll::cuda::emulate
