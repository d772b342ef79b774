// The standard headers come first: what they define stays usable on every machine.
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define SK_TARGET avx2
#include "loops.h"

namespace sat_kernels::cpu::avx2 {
const Kernels& kernels() {
  static const Kernels k = make_kernels("avx2");
  return k;
}
}  // namespace sat_kernels::cpu::avx2
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
