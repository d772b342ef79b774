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
#define SK_WIDE 8  // floats of a register
#include "attack_loops.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
