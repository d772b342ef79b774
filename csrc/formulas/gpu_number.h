// What a GPU has instructions for; and float with approximate functions, in which 16-bit types are computed.
//
// A multiprocessor starts 128 additions or products per cycle but 16 special functions (exponential, reciprocal,
// square root). At 4 bytes of traffic per element an H200 has 28 to 31 instructions and 3.5 special functions for each,
// an H100 with 3.0 TB/s 39 and 4.9.
#pragma once

#ifdef SK_EMULATED
#include "emulator.h"
#endif

namespace sat_kernels {

// The special-function unit: exponential and logarithm within 2^-22, the others within 2^-23 (PTX ISA, "Floating Point
// Instructions"). Denormal arguments and results count as 0.
#if defined(__CUDA_ARCH__)
#define SK_SPECIAL(name, instruction)                                            \
  __device__ __forceinline__ float name(float x) {                               \
    float y;                                                                     \
    asm(instruction ".approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));               \
    return y;                                                                    \
  }
SK_SPECIAL(approximate_exp2, "ex2")
SK_SPECIAL(approximate_log2, "lg2")
SK_SPECIAL(approximate_reciprocal, "rcp")
SK_SPECIAL(approximate_square_root, "sqrt")
#undef SK_SPECIAL
#elif defined(SK_EMULATED)
inline float approximate_exp2(float x) { return emulator::ex2_approx_ftz(x); }
inline float approximate_log2(float x) { return emulator::lg2_approx_ftz(x); }
inline float approximate_reciprocal(float x) { return emulator::rcp_approx_ftz(x); }
inline float approximate_square_root(float x) { return emulator::sqrt_approx_ftz(x); }
#else
// The host only makes formulas from their numbers.
inline float approximate_exp2(float x) { return std::exp2(x); }
inline float approximate_log2(float x) { return std::log2(x); }
inline float approximate_reciprocal(float x) { return 1 / x; }
inline float approximate_square_root(float x) { return std::sqrt(x); }
#endif

SK_FN float reciprocal(float x) {
  const float r = approximate_reciprocal(x);
  return r + r * (1 - x * r);
}
SK_FN float quotient(float a, float b) { return a * reciprocal(b); }
SK_FN float loose_quotient(float a, float b) { return a * approximate_reciprocal(b); }
SK_FN float square_root(float x) { return approximate_square_root(x); }

// One instruction where a comparison and a selection would be two. NaN stays NaN.
SK_FN float at_least(float x, float low) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(low));
  return y;
#else
  return x < low ? low : x;
#endif
}
SK_FN float at_most(float x, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(high));
  return y;
#else
  return x > high ? high : x;
#endif
}
// A modifier of the operand, for nothing.
SK_FN float absolute(float x) { return std::fabs(x); }
SK_FN float minus_absolute(float x) { return -std::fabs(x); }

struct Approximate {
  float value;
  Approximate() = default;
  template <class N> SK_FN constexpr explicit Approximate(N number) : value(static_cast<float>(number)) {}
  SK_FN constexpr explicit operator float() const { return value; }
  SK_FN constexpr Approximate operator-() const { return Approximate(-value); }
};
template <> inline constexpr bool kApproximate<Approximate> = true;
template <> struct FloatBits<Approximate> : FloatBits<float> {
  static constexpr Approximate kLargest = Approximate(FloatBits<float>::kLargest);
};

SK_FN constexpr Approximate operator+(Approximate a, Approximate b) { return Approximate(a.value + b.value); }
SK_FN constexpr Approximate operator-(Approximate a, Approximate b) { return Approximate(a.value - b.value); }
SK_FN constexpr Approximate operator*(Approximate a, Approximate b) { return Approximate(a.value * b.value); }
SK_FN Approximate operator/(Approximate a, Approximate b) {
  return Approximate(a.value * approximate_reciprocal(b.value));
}
SK_FN constexpr bool operator<(Approximate a, Approximate b) { return a.value < b.value; }
SK_FN constexpr bool operator>(Approximate a, Approximate b) { return a.value > b.value; }
SK_FN constexpr bool operator<=(Approximate a, Approximate b) { return a.value <= b.value; }
SK_FN constexpr bool operator>=(Approximate a, Approximate b) { return a.value >= b.value; }
SK_FN constexpr bool operator==(Approximate a, Approximate b) { return a.value == b.value; }

SK_FN Approximate at_least(Approximate x, Approximate low) { return Approximate(at_least(x.value, low.value)); }
SK_FN Approximate at_most(Approximate x, Approximate high) { return Approximate(at_most(x.value, high.value)); }
SK_FN Approximate absolute(Approximate x) { return Approximate(absolute(x.value)); }
SK_FN Approximate minus_absolute(Approximate x) { return Approximate(minus_absolute(x.value)); }
SK_FN bool negative(Approximate x) { return x.value < 0; }
SK_FN Approximate exp2(Approximate x) { return Approximate(approximate_exp2(x.value)); }
SK_FN Approximate log2(Approximate x) { return Approximate(approximate_log2(x.value)); }
SK_FN Approximate reciprocal(Approximate x) { return Approximate(approximate_reciprocal(x.value)); }
SK_FN Approximate square_root(Approximate x) { return Approximate(approximate_square_root(x.value)); }

}  // namespace sat_kernels
