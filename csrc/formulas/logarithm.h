// log(1 + t) for t >= 0.
#pragma once

#include "number.h"

namespace sat_kernels {

namespace detail {

// (artanh(s) - s) / s^3, for z = s^2 <= 1/9.
template <class T> SK_FN T artanh_tail(T z) {
  if constexpr (sizeof(T) == 4) {
    return polynomial(z, 0.333332701729631365f, 0.200074109725090437f, 0.140526175388633052f,
                         0.137647736982454185f);
  } else {
    return polynomial(z, 0.333333333333332874, 0.200000000000300132, 0.142857142799414565, 0.111111116196757684,
                         0.090908845129910226, 0.0769301936501242858, 0.0665382095318295358,
                         0.0602733604120679792, 0.0427958248126333741, 0.0831120010870142016);
  }
}

}  // namespace detail

// log(1 + t) = multiple + 2 s + rest, and where t < 1, multiple is 0 and f is t.
template <class T> struct Logarithm {
  T multiple, f, s, rest;
};
// For t < 2^100.
template <class T> SK_FN Logarithm<T> split_log_one_plus(T t) {
  using Bits = typename FloatBits<T>::Unsigned;
  constexpr int mantissa = FloatBits<T>::kMantissa;
  constexpr Bits one = Bits(FloatBits<T>::kBias) << mantissa;
  // 1 + t = 2^k (1 + f), 0 <= f < 1. Computed from t, f does not have the rounding of 1 + t.
  const Bits exponent = (bit_cast<Bits>(T(1) + t) & (~Bits(0) << mantissa)) - one;
  const T scale = bit_cast<T>(Bits(one - exponent));
  const T f = t * scale + (scale - T(1));
  const T s = quotient(f, T(2) + f), z = s * s;
  // k as a number, through the mantissa: there is no vector conversion from 64-bit integers before AVX-512.
  constexpr T magic = sizeof(T) == 4 ? T(8388608.0) : T(4503599627370496.0);
  const T k = bit_cast<T>(Bits((exponent >> mantissa) | bit_cast<Bits>(magic))) - magic;
  return {k * T(0.693147180559945309417), f, s, T(2) * s * z * detail::artanh_tail(z)};
}

// log(1 + t) for 0 <= t <= 1, relatively accurate.
template <class T> SK_FN T log_one_plus_fraction(T t) {
  if constexpr (sizeof(T) == 4) {
    return t * polynomial(t, 0.999999969886239911f, -0.499994931695336449f, 0.333190971071506707f,
                             -0.248429833920683296f, 0.191060088007455532f, -0.136632466697070563f,
                             0.078225931866174469f, -0.0295052108447835774f, 0.0052326837597104776f);
  } else {
    const T s = quotient(t, T(2) + t), z = s * s;
    return t - s * (t - T(2) * z * detail::artanh_tail(z));
  }
}

// -log(1 - p) for 0 <= p <= 1/2, relatively accurate.
template <class T> SK_FN T log_of_complement(T p) {
  if constexpr (sizeof(T) == 4) {
    return p * polynomial(p, 1.00000002272590694f, 0.499992852871063388f, 0.333700606468839991f,
                             0.24280519259894464f, 0.269611886851237378f, -0.203535240516202069f,
                             1.25766085092017357f, -1.69580065791033241f, 1.44110206561356957f);
  } else {
    const T s = quotient(p, T(2) - p), z = s * s;
    return p + s * (p + T(2) * z * detail::artanh_tail(z));
  }
}

}  // namespace sat_kernels
