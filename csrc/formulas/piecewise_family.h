// Activations with a formula of its own on each side of 0.
#pragma once

#include "exponential.h"
#include "logarithm.h"

namespace sat_kernels {

template <class T> struct ELU {
  // x where x > 0, else alpha (exp(x) - 1). The slope at 0 is alpha, as torch has it.
  static constexpr T kMinusOne = sizeof(T) == 4 ? T(-18) : T(-38);
  T alpha, twice, minus_one = kMinusOne, zero = kExpZero<T>;
  SK_FN ELU(T alpha, T) : alpha(alpha), twice(alpha + alpha) {}
  // What the exponential is where x > 0 does not matter.
  SK_FN T value(T x) const {
    const T left = twice * half_exponential(at_least(x, minus_one)).minus_one;
    return negative(x) ? left : x;
  }
  SK_FN T power(T x) const { return alpha * exponential(at_least(x, zero)); }
  SK_FN T derivative(T x) const {
    const T left = power(x);
    return x > T(0) ? T(1) : left;
  }
  SK_FN T second(T x) const {
    const T left = power(x);
    return x >= T(0) ? T(0) : left;
  }
};

template <class T> struct CELU {
  // x where x > 0, else alpha (exp(x / alpha) - 1). torch takes a negative alpha too, and then this goes to infinity.
  T inverse, twice;
  Range<T> value_range{ELU<T>::kMinusOne, sizeof(T) == 4 ? T(88.9) : T(709.9)}, range{kExpZero<T>, kExpHigh<T>};
  SK_FN CELU(T alpha, T) : inverse(T(1) / alpha), twice(alpha + alpha) {}
  SK_FN T value(T x) const {
    const T left = twice * half_exponential(value_range.cut(x * inverse)).minus_one;
    return negative(x) ? left : x;
  }
  SK_FN T power(T x) const { return exponential(range.cut(x * inverse)); }
  SK_FN T derivative(T x) const {
    const T left = power(x);
    return x > T(0) ? T(1) : left;
  }
  SK_FN T second(T x) const {
    const T left = power(x) * inverse;
    return x >= T(0) ? T(0) : left;
  }
};

template <class T> struct SmoothReLU {
  // x - log(1 + beta x) / beta where x > 0, else 0. For small t = beta x the difference cancels (7e6 ulp);
  // with log(1 + t) = m + 2 s + rest, f = t - m for t < 1, its terms that cancel are left out.
  static constexpr int kParameters = 1;
  // Above, the logarithm no longer counts, and inf / inf would be NaN.
  Range<T> range{T(0), T(1e30)};
  T beta, inverse;
  SK_FN SmoothReLU(T beta, T) : beta(beta), inverse(reciprocal(beta)) {}
  SK_FN T scaled(T x) const { return range.cut(beta * x); }
  SK_FN T value(T x) const {
    const T t = at_least(beta * x, range.low);
    return t < range.high ? difference(t) * inverse : x;
  }
  // t - log(1 + t).
  SK_FN static T difference(T t) {
    if constexpr (kApproximate<T>) {
      // 12 instructions fewer. Where the difference cancels, its series, 9e-6 off.
      const T series = (t * t) * polynomial(t, 0.5f, -0x1.555556p-2f, 0.25f, -0.2f, 0x1.555556p-3f);
      return t < T(0.125) ? series : t - log2(T(1) + t) * T(0.693147180559945309417);
    } else {
      const auto l = split_log_one_plus(t);
      // 2 s = f - f s.
      return (t - l.f) - l.multiple + (l.f * l.s - l.rest);
    }
  }
  SK_FN T derivative(T x) const {
    const T t = scaled(x);
    return quotient(t, T(1) + t);
  }
  SK_FN T second(T x) const {
    const T d = reciprocal(T(1) + scaled(x));
    return x <= T(0) ? T(0) : beta * d * d;
  }
  SK_FN Gradients<T, 1> parameters(T x) const {
    // (log(1 + t) - d) / beta^2, d = t / (1 + t); and 2 s - d = s d where t < 1.
    const T t = scaled(x), d = derivative(x);
    const auto l = split_log_one_plus(t);
    const T difference = t < T(1) ? l.s * d : T(2) * l.s - d;
    return {((l.multiple + difference) + l.rest) * inverse * inverse};
  }
};

}  // namespace sat_kernels
