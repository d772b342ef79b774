// The standard headers come first: what they define stays usable on every machine.
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define SK_TARGET avx512
#define SK_WIDE 16  // floats of a register
#include "attack_loops.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
