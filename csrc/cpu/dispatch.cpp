// SPDX-License-Identifier: Apache-2.0
// Choice of the instruction set, once per process: the best one that both the processor (cpuid) and
// the operating system (xgetbv) support, or the one that FASTUNROLL_ISA names.
#include <array>
#include <cstdlib>
#include <cstring>
#include <string>

#include "cpu/kernels.h"

#if defined(FASTUNROLL_X86)
#include <cpuid.h>
#endif

namespace fastunroll::cpu {
namespace {

#if defined(FASTUNROLL_X86)
struct Features {
  bool avx2 = false;
  bool avx512 = false;
};

Features detect() {
  Features found;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool fma = (c >> 12) & 1u;
  const bool osxsave = (c >> 27) & 1u;
  if (!osxsave) return found;
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  const bool ymm_saved = (low & 0x06u) == 0x06u;
  const bool zmm_saved = (low & 0xe6u) == 0xe6u;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  const bool avx2 = (b >> 5) & 1u;
  const bool bmi2 = (b >> 8) & 1u;
  // F, DQ, CD, BW, VL
  const unsigned avx512 = (1u << 16) | (1u << 17) | (1u << 28) | (1u << 30) | (1u << 31);
  found.avx2 = ymm_saved && fma && avx2 && bmi2;
  found.avx512 = found.avx2 && zmm_saved && (b & avx512) == avx512;
  return found;
}
#endif

struct Choice {
  std::array<const KernelTable*, 4> supported{};
  const KernelTable* active = nullptr;
  std::string error;
};

Choice choose() {
  Choice choice;
  std::size_t n = 0;
  choice.supported[n++] = &generic_kernels();
#if defined(FASTUNROLL_X86)
  const Features features = detect();
  if (features.avx2) choice.supported[n++] = &avx2_kernels();
  if (features.avx512) choice.supported[n++] = &avx512_kernels();
#elif defined(FASTUNROLL_ARM64)
  choice.supported[n++] = &neon_kernels();  // a part of every such processor
#endif
  choice.active = choice.supported[n - 1];
  const char* wanted = std::getenv("FASTUNROLL_ISA");
  if (wanted == nullptr || *wanted == '\0') return choice;
  std::string known;
  for (std::size_t i = 0; i < n; ++i) {
    if (std::strcmp(wanted, choice.supported[i]->isa) == 0) {
      choice.active = choice.supported[i];
      return choice;
    }
    known += (i == 0 ? "" : ", ") + std::string(choice.supported[i]->isa);
  }
  choice.error = "FASTUNROLL_ISA is '" + std::string(wanted) +
                 "', but this processor and build support: " + known;
  return choice;
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

}  // namespace

const KernelTable& active_kernels() { return *choice().active; }

const char* isa_error() { return choice().error.empty() ? nullptr : choice().error.c_str(); }

const KernelTable* const* supported_kernels() { return choice().supported.data(); }

template <>
const Kernels<float>& active<float>() {
  return active_kernels().f32;
}

template <>
const Kernels<double>& active<double>() {
  return active_kernels().f64;
}

}  // namespace fastunroll::cpu
