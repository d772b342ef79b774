// exp, exp - 1 and sigmoid.
//
// Coefficients: coefficients.py. Errors: tests/ops/test_activation.py measures them.
#pragma once

#include "number.h"

namespace sat_kernels {

// Denormal numbers are normal once multiplied by 2^kLift.
template <class T> constexpr int kLift = FloatBits<T>::kMantissa + 1;
template <class T> constexpr T kLifted = sizeof(T) == 4 ? T(0x1p24) : T(0x1p53);
template <class T> constexpr T kUnlift = sizeof(T) == 4 ? T(0x1p-24) : T(0x1p-53);

namespace detail {

// (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2. For float: within 1.1e-7 of exp.
SK_FN float exp_tail(float r) {
  return polynomial(r, 0.499992168683688603f, 0.166671237769869914f, 0.0418923023423025869f,
                       0.00831228745832096865f);
}
SK_FN double exp_tail(double r) {
  return polynomial(r, 0.500000000000001115, 0.166666666666663999, 0.0416666666665247957, 0.0083333333335008393,
                       0.00138888889452403224, 0.0001984126949666258, 0.0000248014912566301333,
                       2.75575916478235245e-6, 2.76309593000922105e-7, 2.49995408577673273e-8);
}
// The same within 1.1e-8 of exp - 1.
SK_FN float exp_minus_one_tail(float r) {
  return polynomial(r, 0.499999822184887923f, 0.166665130866010301f, 0.0416706298596716332f,
                       0.00836950678231313437f, 0.00137075003160857902f);
}
SK_FN double exp_minus_one_tail(double r) { return exp_tail(r); }

// x = n log(2) + r with |r| <= log(2) / 2; scale is 2^(n + lift).
template <class T> struct Reduced {
  T scale, r;
};
template <int lift, class T> SK_FN Reduced<T> reduce_by_log2(T x) {
  using Bits = typename FloatBits<T>::Unsigned;
  constexpr bool single = sizeof(T) == 4;
  // Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the low mantissa bits; with the bias added,
  // these are the exponent bits of the scale.
  constexpr T magic = (single ? T(12582912.0) : T(6755399441055744.0)) + T(FloatBits<T>::kBias + lift);
  const T shifted = x * T(1.44269504088896340736) + magic;
  const T n = shifted - magic;
  const T scale = bit_cast<T>(Bits(bit_cast<Bits>(shifted) << FloatBits<T>::kMantissa));
#ifdef SK_FUSED
  // log(2) rounded to float is 2.7e-9 off, which is 2 units at x = -80.
  if constexpr (single) return {scale, x - n * T(0.693147180559945309417)};
#endif
  constexpr T high = single ? T(0.693359375) : T(6.93147180369123816490e-01);
  constexpr T low = single ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10);
  return {scale, (x - n * high) - n * low};
}

// exp(x) 2^lift for n + lift within [-bias, bias], n being x / log(2) rounded: at the lower end 0.
template <int lift, class T> SK_FN T scaled_exponential(T x) {
  if constexpr (kApproximate<T>) {
    return exp2(x * T(1.44269504088896340736) + T(lift));
  } else {
    const auto [scale, r] = reduce_by_log2<lift>(x);
    const T scaled = scale * r;
    return (scale + scaled) + (scaled * r) * exp_tail(r);
  }
}

}  // namespace detail

// exp(x) for kExpZero <= x <= kExpHigh. Denormal results become 0.
template <class T> constexpr T kExpZero = sizeof(T) == 4 ? T(-88.1) : T(-708.9);
template <class T> constexpr T kExpHigh = sizeof(T) == 4 ? T(88.3) : T(709.4);
template <class T> SK_FN T exponential(T x) {
  return detail::scaled_exponential<0>(x);
}

// exp(x) 2^kLift, for kLiftedZero <= x <= 71: rounded to denormal results once the factor is taken away.
template <class T> constexpr T kLiftedZero = sizeof(T) == 4 ? T(-104.7) : T(-745.7);
template <class T> SK_FN T lifted_exponential(T x) {
  return detail::scaled_exponential<kLift<T>>(x);
}

// exp(x) / 2, and less 1 / 2 without cancellation. Half, since 2^n itself may overflow where the result does not.
template <class T> struct HalfExponential {
  T power, minus_one;
};
template <class T> SK_FN HalfExponential<T> half_exponential(T x) {
  if constexpr (kApproximate<T>) {
    const T power = exp2(x * T(1.44269504088896340736) - T(1));
    // For small x the difference would lose its digits.
    const T small = x * polynomial(x, 0.5f, 0.25f, 0x1.555556p-4f, 0x1.555556p-6f, 0x1.111112p-8f);
    return {power, absolute(x) < T(0.25) ? small : power - T(0.5)};
  } else {
    const auto [scale, r] = detail::reduce_by_log2<-1>(x);
    const T scaled = scale * r, higher = (scaled * r) * detail::exp_minus_one_tail(r);
    return {(scale + scaled) + higher, ((scale - T(0.5)) + scaled) + higher};
  }
}

// The range of the functions below. At its ends sigmoid(z) and sigmoid(-z) are exactly 0; the latter is then
// below 1e-31, which is 0 beside anything that it is added to.
template <class T> constexpr T kSigmoidLow = kLiftedZero<T>;
template <class T> constexpr T kSigmoidHigh = sizeof(T) == 4 ? T(71.5) : T(672.2);

// sigmoid(z) and sigmoid(-z), without cancellation.
template <class T> struct Logistic {
  T s, q;
};
template <class T> SK_FN Logistic<T> logistic(T z) {
  // w = exp(-z) 2^-kLift: without the factor it would overflow where sigmoid is denormal only.
  const T w = detail::scaled_exponential<-kLift<T>>(-z), d = reciprocal(kUnlift<T> + w);
  return {d * kUnlift<T>, w * d};
}
template <class T> SK_FN T sigmoid(T z) {
  return quotient(kUnlift<T>, kUnlift<T> + detail::scaled_exponential<-kLift<T>>(-z));
}

}  // namespace sat_kernels
