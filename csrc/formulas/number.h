// Numbers' bits, selections and polynomials, for float and double.
//
// Everything that the formulas are made of is branch-free, so that the compiler vectorises the loops they
// are inlined into (a call of libm would keep it from that: 7 to 15 times slower).
// Selections are written a < b ? b : a and so on: they keep NaN, as fmin and fmax would not.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SK_FN __host__ __device__ __forceinline__
#else
#define SK_FN [[gnu::always_inline]] inline
#endif

// GCC does not inline lambdas into vectorised loops of its own accord.
#ifdef __CUDACC__
#define SK_INLINE_LAMBDA
#else
#define SK_INLINE_LAMBDA __attribute__((always_inline))
#endif

// The code of a GPU; SK_EMULATED: compiled for the CPU, to be tested there.
#if defined(__CUDACC__) || defined(SK_EMULATED)
#define SK_GPU
#endif

// Products and sums are contracted to fused multiply-adds.
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA) || defined(SK_GPU)
#define SK_FUSED
#endif

namespace sat_kernels {

template <class T> struct FloatBits;
template <> struct FloatBits<float> {
  using Unsigned = uint32_t;
  using Signed = int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kLargest = 0x1.fffffep127f;
};
template <> struct FloatBits<double> {
  using Unsigned = uint64_t;
  using Signed = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kLargest = 0x1.fffffffffffffp1023;
};

template <class To, class From> SK_FN To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

// Whether T's functions may be 2^-21 off, since results are rounded to 16 bits.
template <class T> constexpr bool kApproximate = false;

}  // namespace sat_kernels

#ifdef SK_GPU
#include "gpu_number.h"
#endif

namespace sat_kernels {

// By the sign bit: the compiler would merge comparisons with those around them into chains of selections.
template <class T> SK_FN T absolute(T x) {
  using Bits = typename FloatBits<T>::Unsigned;
  return bit_cast<T>(Bits(bit_cast<Bits>(x) & (~Bits(0) >> 1)));
}
template <class T> SK_FN T minus_absolute(T x) {
  using Bits = typename FloatBits<T>::Unsigned;
  return bit_cast<T>(Bits(bit_cast<Bits>(x) | ~(~Bits(0) >> 1)));
}
// Whether x < 0, where zero and NaN may go either way: for float by the sign bit, which selects without a
// comparison. (SSE2 has none for 64-bit integers, and the loop would not be vectorised.)
SK_FN bool negative(float x) { return bit_cast<int32_t>(x) < 0; }
SK_FN bool negative(double x) { return x < 0; }
template <class T> SK_FN T at_least(T x, T low) { return x < low ? low : x; }
template <class T> SK_FN T at_most(T x, T high) { return x > high ? high : x; }
// For finite divisors that are normal numbers, as are their inverses. A GPU's exact division is four times as long.
template <class T> SK_FN T quotient(T a, T b) { return a / b; }
template <class T> SK_FN T reciprocal(T x) { return T(1) / x; }
// For any divisor; on a GPU within 2 units.
template <class T> SK_FN T loose_quotient(T a, T b) { return a / b; }
template <class T> SK_FN T square_root(T x) { return std::sqrt(x); }

// [low, high]. Formulas hold theirs as members, hidden from the compiler (see hidden()): it takes one instruction
// for a bound that it does not know, and two for one that it does, which costs 15 % of SiLU's time.
template <class T> struct Range {
  T low, high;
  SK_FN T cut(T x) const { return at_most(at_least(x, low), high); }
};
// max(x, 0) is written with a comparison that is false for NaN, which the other summands then carry.
template <class T> SK_FN T positive_part(T x) { return x > T(0) ? x : T(0); }
// x * factor where the factor goes to 0 faster than x to infinity: 0 instead of inf * 0.
template <class T> SK_FN T vanishing_product(T x, T factor) { return factor == T(0) ? T(0) : x * factor; }

template <class T> SK_FN T polynomial(T, T constant) { return constant; }
template <class T, class... C> SK_FN T polynomial(T x, T constant, C... higher) {
  return constant + x * polynomial(x, higher...);
}
#ifdef SK_GPU
template <class... C> SK_FN Approximate polynomial(Approximate x, float constant, C... higher) {
  return Approximate(polynomial(x.value, constant, higher...));
}
#endif

}  // namespace sat_kernels
