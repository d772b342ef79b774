// Elementary functions for the formulas, for float and double.
//
// On the CPU they are branch-free, so that the compiler vectorises the loops they are inlined into (a call
// of libm would keep it from that: 7 to 15 times slower). On the device they are CUDA's own.
// Selections are written a < b ? b : a and so on: they keep NaN, as fmin and fmax would not.
// Coefficients: coefficients.py. Errors: tests/ops/test_activation.py measures them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SK_FN __host__ __device__ __forceinline__
#else
#define SK_FN [[gnu::always_inline]] inline
#endif

namespace sat_kernels {

template <class T> struct FloatBits;
template <> struct FloatBits<float> {
  using Unsigned = uint32_t;
  using Signed = int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
};
template <> struct FloatBits<double> {
  using Unsigned = uint64_t;
  using Signed = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
};

template <class To, class From> SK_FN To bit_cast(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

// By the sign bit: the compiler would merge comparisons with those around them into chains of selections.
template <class T> SK_FN T absolute(T x) {
  using Bits = typename FloatBits<T>::Unsigned;
  return bit_cast<T>(Bits(bit_cast<Bits>(x) & (~Bits(0) >> 1)));
}
// `magnitude`, which is not negative, with the sign of x.
template <class T> SK_FN T with_sign_of(T magnitude, T x) {
  using Bits = typename FloatBits<T>::Unsigned;
  return bit_cast<T>(Bits(bit_cast<Bits>(magnitude) | (bit_cast<Bits>(x) & ~(~Bits(0) >> 1))));
}
template <class T> SK_FN T at_least(T x, T low) { return x < low ? low : x; }
template <class T> SK_FN T at_most(T x, T high) { return x > high ? high : x; }

template <class T> SK_FN T polynomial(T, T constant) { return constant; }
template <class T, class... C> SK_FN T polynomial(T x, T constant, C... higher) {
  return constant + x * polynomial(x, higher...);
}

namespace detail {

// 2^e for e in the normal range; e is given with the exponent's bias added.
template <class T> SK_FN T power_of_two(typename FloatBits<T>::Unsigned biased_exponent) {
  return bit_cast<T>(typename FloatBits<T>::Unsigned(biased_exponent << FloatBits<T>::kMantissa));
}

SK_FN float exp_tail(float r) {
  return polynomial(r, 0.5f, 0.16666573381900846f, 0.0416665501103051244f, 0.0083637738744055735f,
                    0.00139269266140219065f);
}
SK_FN double exp_tail(double r) {
  return polynomial(r, 0.5, 0.166666666666666675, 0.0416666666666206386, 0.0083333333333297935,
                    0.00138888889189391678, 0.000198412698643805133, 0.0000248015186413959936,
                    2.75572664186123037e-6, 2.76213386691429238e-7, 2.51013469283503402e-8);
}

// x = n log(2) + r with |r| <= log(2)/2. `shifted` holds n in its low mantissa bits.
template <class T> struct Reduced {
  T shifted, r;
};
template <class T> SK_FN Reduced<T> reduce_by_log2(T x) {
  constexpr bool single = sizeof(T) == 4;
  // Adding 1.5 * 2^mantissa rounds to an integer.
  constexpr T magic = single ? T(12582912.0) : T(6755399441055744.0);
  constexpr T high = single ? T(0.693359375) : T(6.93147180369123816490e-01);
  constexpr T low = single ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);
  const T shifted = x * T(1.44269504088896340736) + magic;
  const T n = shifted - magic;
  return {shifted, (x - n * high) - n * low};
}

}  // namespace detail

// Where exp underflows to 0.
template <class T> constexpr T kUnderflow = sizeof(T) == 4 ? T(-104) : T(-746);

// exp(x) for kUnderflow <= x <= 65 (double: 660), rounded to denormal results as it should be.
template <class T> SK_FN T exponential_in_range(T x) {
#ifdef __CUDA_ARCH__
  return ::exp(x);
#else
  using Bits = typename FloatBits<T>::Unsigned;
  constexpr bool single = sizeof(T) == 4;
  const auto [shifted, r] = detail::reduce_by_log2(x);
  const T value = T(1) + r * (T(1) + r * detail::exp_tail(r));
  // 2^n in two factors, of which one is fixed, since n may be below the least normal exponent.
  constexpr Bits lift = single ? 32 : 64;
  constexpr T unlift = single ? T(0x1p-32) : T(0x1p-64);
  return value * detail::power_of_two<T>(bit_cast<Bits>(shifted) + Bits(FloatBits<T>::kBias + lift)) * unlift;
#endif
}

// exp(x) for x <= 65 (double: 660).
template <class T> SK_FN T exponential(T x) { return exponential_in_range(at_least(x, kUnderflow<T>)); }

// exp(x) - 1 without cancellation.
template <class T> SK_FN T exponential_minus_one(T x) {
#ifdef __CUDA_ARCH__
  return ::expm1(x);
#else
  using Bits = typename FloatBits<T>::Unsigned;
  constexpr T low = sizeof(T) == 4 ? T(-80) : T(-700), high = sizeof(T) == 4 ? T(89) : T(710);
  const auto [shifted, r] = detail::reduce_by_log2(at_most(at_least(x, low), high));
  const T tail = r + r * r * detail::exp_tail(r);
  // Half the result, doubled at the end: 2^n itself may overflow where the result does not.
  const T scale = detail::power_of_two<T>(bit_cast<Bits>(shifted) + Bits(FloatBits<T>::kBias - 1));
  return T(2) * (scale * tail + (scale - T(0.5)));
#endif
}

// log(1 + t) for t >= 0, finite.
template <class T> SK_FN T log_one_plus(T t) {
#ifdef __CUDA_ARCH__
  return ::log1p(t);
#else
  using Bits = typename FloatBits<T>::Unsigned;
  constexpr bool single = sizeof(T) == 4;
  constexpr Bits sqrt_half = single ? Bits(0x3f3504f3) : Bits(0x3fe6a09e667f3bcd);
  // 1 + t = 2^k m, m in [sqrt(1/2), sqrt(2)).
  const T sum = T(1) + t;
  const Bits k = (bit_cast<Bits>(sum) - sqrt_half) >> FloatBits<T>::kMantissa;
  const T m = bit_cast<T>(Bits(bit_cast<Bits>(sum) - (k << FloatBits<T>::kMantissa)));
  // What rounding 1 + t lost, at m's scale; for k = 0 it makes f = t.
  const T lost = (t - (sum - T(1))) * detail::power_of_two<T>(Bits(FloatBits<T>::kBias) - k);
  const T f = (m - T(1)) + lost;
  const T s = f / (T(2) + f), z = s * s;
  T w;
  if constexpr (single) {
    w = polynomial(z, T(1) / 3, T(1) / 5, T(1) / 7, T(1) / 9);
  } else {
    w = polynomial(z, T(1) / 3, T(1) / 5, T(1) / 7, T(1) / 9, T(1) / 11, T(1) / 13, T(1) / 15, T(1) / 17, T(1) / 19,
                   T(1) / 21);
  }
  // log(m) = 2 artanh(s), written as f minus a correction: s itself carries the rounding of the division.
  const T half_square = T(0.5) * f * f;
  const T log_m = f - (half_square - s * (half_square + T(2) * z * w));
  constexpr T high = single ? T(0.693359375) : T(6.93147180369123816490e-01);
  constexpr T low = single ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);
  // k as a number, through the mantissa: there is no vector conversion from 64-bit integers before AVX-512.
  constexpr T magic = single ? T(8388608.0) : T(4503599627370496.0);
  const T exponent = bit_cast<T>(Bits(k | bit_cast<Bits>(magic))) - magic;
  return exponent * high + (log_m + exponent * low);
#endif
}

// The normal distribution at x: Phi(-|x|), its lower tail, and the density, both from one exponential.
template <class T> struct Normal {
  T tail, density;
};
template <class T> SK_FN Normal<T> normal(T x) {
  constexpr bool single = sizeof(T) == 4;
  // Beyond, x times the tail is 0, and a^2 / 2 out of exp's range.
  constexpr T limit = single ? T(14.4) : T(38.6);
  const T a = at_most(absolute(x), limit);
  const T e = exponential_in_range(T(-0.5) * a * a);
  const T density = T(0.398942280401432678) * e;
#ifdef __CUDA_ARCH__
  return {T(0.5) * ::erfc(a * T(0.707106781186547524)), density};
#else
  const T d = T(1) / (a + T(4)), q = (a - T(4)) * d;
  T g;
  if constexpr (single) {
    g = polynomial(q, 0.755285138510370549f, -0.607896606073809151f, 0.387136679794706625f, -0.18652300589738765f,
                   0.0604064697483036412f, -0.00752721291167985461f, -0.0035235740563519058f,
                   0.00156931364509224635f, 0.000194801851142465442f, -0.000122983157005266082f);
  } else {
    g = polynomial(q, 0.75528513041575148, -0.607896641971891759, 0.387137400742218879, -0.186521857959694163,
                   0.0603965748906994641, -0.00754018896559305902, -0.00347969236224253334, 0.0016308184418903596,
                   0.000133344254019049116, -0.000231094818319376211, -1.90786653166135743e-6,
                   0.0000351441811577609727, 7.15005595921609866e-7, -5.91889273176323645e-6,
                   -6.25132104047868019e-7, 1.01980485181351727e-6, 2.63682485764076251e-7,
                   -1.54263205367710739e-7, -7.63808205349045035e-8, 1.45785933470364597e-8,
                   1.39240239935017101e-8, 7.26954547902668946e-11, -9.65342542022850467e-10);
  }
  return {e * (g * d), density};
#endif
}

// sigmoid(z), sigmoid(-z) and exp(-|z|), without cancellation.
template <class T> struct Logistic {
  T s, q, t;
};
template <class T> SK_FN Logistic<T> logistic(T z) {
  const T t = exponential(-absolute(z)), d = T(1) / (T(1) + t), td = t * d;
  const bool positive = z >= T(0);
  return {positive ? d : td, positive ? td : d, t};
}

}  // namespace sat_kernels
