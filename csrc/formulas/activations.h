// THE formulas: one struct per activation, over float or double.
//
// value(x), derivative(x), second(x): f, f' and f''. Learnable ones have parameter(x), df/dp, too.
// Constructed from up to two numbers; what depends on them alone is computed once.
// Stable forms and their derivation: each struct says where the plain one loses its digits.
#pragma once

#include "number.h"

namespace sat_kernels {

// x with its magnitude cut at `limit`, where f' and f'' have their limits and inf * 0 would be NaN.
template <class T> SK_FN T cut(T x, T limit) { return with_sign_of(at_most(absolute(x), limit), x); }
// max(x, 0) is written with a comparison that is false for NaN, which the other summands then carry.
template <class T> SK_FN T positive_part(T x) { return x > T(0) ? x : T(0); }

template <class T> struct SiLU {
  // x sigmoid(x). Beyond -104 exp underflows and inf * 0 would be NaN.
  static constexpr T kLimit = sizeof(T) == 4 ? T(104) : T(746);
  SK_FN SiLU(double, double) {}
  SK_FN T value(T x) const {
    const T z = at_least(x, -kLimit);
    return z * logistic(z).s;
  }
  SK_FN T derivative(T x) const {
    const T z = cut(x, kLimit);
    const auto l = logistic(z);
    return l.s + z * l.s * l.q;
  }
  SK_FN T second(T x) const {
    const T z = cut(x, kLimit);
    const auto l = logistic(z);
    return l.s * l.q * (T(2) + z * (l.q - l.s));
  }
};

template <class T> struct GELU {
  // x Phi(x). 1 + erf would lose every digit of the left tail.
  static constexpr T kLimit = sizeof(T) == 4 ? T(14.4) : T(38.6);
  SK_FN GELU(double, double) {}
  SK_FN static T cdf(T x, T tail) { return x > T(0) ? T(1) - tail : tail; }
  SK_FN T value(T x) const { return at_least(x, -kLimit) * cdf(x, normal(x).tail); }
  SK_FN T derivative(T x) const {
    const auto n = normal(x);
    return cdf(x, n.tail) + cut(x, kLimit) * n.density;
  }
  SK_FN T second(T x) const {
    const T z = cut(x, kLimit);
    return normal(z).density * (T(2) - z * z);
  }
};

template <class T> struct GELUTanh {
  // x sigmoid(v), v = 2 sqrt(2/pi) (x + 0.044715 x^3), which is 0.5 x (1 + tanh(v/2)) without its cancellation.
  static constexpr T kLimit = sizeof(T) == 4 ? T(12) : T(28);
  static constexpr T k2 = T(1.59576912160573071176), kCubic = T(0.044715);
  SK_FN GELUTanh(double, double) {}
  SK_FN static T clamp(T x) { return cut(x, kLimit); }
  SK_FN static T inner(T z) { return k2 * (z + kCubic * z * z * z); }
  SK_FN static T slope(T z) { return k2 * (T(1) + T(3) * kCubic * z * z); }
  SK_FN T value(T x) const { return at_least(x, -kLimit) * logistic(inner(clamp(x))).s; }
  SK_FN T derivative(T x) const {
    const T z = clamp(x);
    const auto l = logistic(inner(z));
    return l.s + z * l.s * l.q * slope(z);
  }
  SK_FN T second(T x) const {
    const T z = clamp(x), dv = slope(z);
    const auto l = logistic(inner(z));
    return l.s * l.q * (T(2) * dv + z * (T(6) * k2 * kCubic * z + dv * dv * (l.q - l.s)));
  }
};

template <class T> struct Softplus {
  // log(1 + exp(beta x)) / beta, and x where beta x > threshold, as torch has it.
  T beta, inverse, threshold;
  SK_FN Softplus(double b, double limit) : beta(T(b)), inverse(T(1.0 / b)), threshold(T(limit)) {}
  SK_FN T value(T x) const {
    const T z = beta * x;
    const T smooth = (positive_part(z) + log_one_plus(exponential(-absolute(z)))) * inverse;
    return z > threshold ? x : smooth;
  }
  SK_FN T derivative(T x) const {
    const T z = beta * x;
    return z > threshold ? T(1) : logistic(z).s;
  }
  SK_FN T second(T x) const {
    const T z = beta * x;
    const auto l = logistic(z);
    return z > threshold ? T(0) : beta * l.s * l.q;
  }
};

template <class T> struct ParametricSoftplus {
  // Softplus without a threshold. With beta * inf = inf, |x| t is inf * 0: hence the clamp.
  static constexpr T kLimit = sizeof(T) == 4 ? T(104) : T(746);
  T alpha, inverse;
  SK_FN ParametricSoftplus(double a, double) : alpha(T(a)), inverse(T(1.0 / a)) {}
  SK_FN T value(T x) const {
    return positive_part(x) + log_one_plus(exponential(-absolute(alpha * x))) * inverse;
  }
  SK_FN T derivative(T x) const { return logistic(alpha * x).s; }
  SK_FN T second(T x) const {
    const auto l = logistic(alpha * x);
    return alpha * l.s * l.q;
  }
  SK_FN T parameter(T x) const {
    // -(|z| t / (1 + t) + log1p(t)) / alpha^2. The plain (x s - f) / alpha loses everything for large x.
    const T z = at_most(absolute(alpha * x), kLimit);
    const auto l = logistic(z);
    return -(z * l.q + log_one_plus(l.t)) * inverse * inverse;
  }
};

template <class T> struct ELU {
  // x where x > 0, else alpha (exp(x) - 1). The slope at 0 is alpha, as torch has it.
  T alpha;
  SK_FN ELU(double a, double) : alpha(T(a)) {}
  SK_FN T value(T x) const {
    const T left = alpha * exponential_minus_one(x);
    return x > T(0) ? x : left;
  }
  SK_FN T derivative(T x) const {
    const T left = alpha * exponential(x);
    return x > T(0) ? T(1) : left;
  }
  SK_FN T second(T x) const {
    const T left = alpha * exponential(x);
    return x >= T(0) ? T(0) : left;
  }
};

template <class T> struct CELU {
  // x where x > 0, else alpha (exp(x / alpha) - 1).
  T alpha, inverse;
  SK_FN CELU(double a, double) : alpha(T(a)), inverse(T(1.0 / a)) {}
  // exp(x / alpha), squared from its root: torch takes a negative alpha too, and then this goes to infinity.
  SK_FN T power(T x) const {
    const T root = exponential(at_most(T(0.5) * x * inverse, sizeof(T) == 4 ? T(44.4) : T(355)));
    return root * root;
  }
  SK_FN T value(T x) const {
    const T left = alpha * exponential_minus_one(x * inverse);
    return x > T(0) ? x : left;
  }
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
  // x - log(1 + beta x) / beta where x > 0, else 0. For t = beta x < 1 the difference cancels (7e6 ulp for
  // small t); with S = t / (2 + t), log1p(t) = 2 artanh(S) and its series starts at the first term that
  // does not cancel.
  T beta, inverse;
  SK_FN SmoothReLU(double b, double) : beta(T(b)), inverse(T(1.0 / b)) {}
  SK_FN T scaled(T x) const {
    // Above 1e30 the logarithm no longer counts, and inf / inf would be NaN.
    return at_most(at_least(beta * x, T(0)), T(1e30));
  }
  SK_FN static T series(T s) {
    const T z = s * s;
    if constexpr (sizeof(T) == 4) {
      return polynomial(z, T(1) / 3, T(1) / 5, T(1) / 7, T(1) / 9, T(1) / 11, T(1) / 13);
    } else {
      return polynomial(z, T(1) / 3, T(1) / 5, T(1) / 7, T(1) / 9, T(1) / 11, T(1) / 13, T(1) / 15, T(1) / 17,
                        T(1) / 19, T(1) / 21, T(1) / 23, T(1) / 25, T(1) / 27, T(1) / 29, T(1) / 31);
    }
  }
  SK_FN T value(T x) const {
    const T t = scaled(x), s = t / (T(2) + t);
    const T small = (t * s - T(2) * s * s * s * series(s)) * inverse;
    const T large = x - log_one_plus(t) * inverse;
    return t < T(1) ? small : large;
  }
  SK_FN T derivative(T x) const {
    const T t = scaled(x);
    return t / (T(1) + t);
  }
  SK_FN T second(T x) const {
    const T d = T(1) / (T(1) + scaled(x));
    return x <= T(0) ? T(0) : beta * d * d;
  }
  SK_FN T parameter(T x) const {
    const T t = scaled(x), s = t / (T(2) + t);
    const T small = T(2) * s * s / (T(1) + s) + T(2) * s * s * s * series(s);
    const T large = log_one_plus(t) - t / (T(1) + t);
    return (t < T(1) ? small : large) * inverse * inverse;
  }
};

template <class T> struct Mish {
  // x tanh(softplus(x)) = x n / (n + 2), n = w (w + 2), w = exp(x): no logarithm, no tanh.
  static constexpr T kLimit = sizeof(T) == 4 ? T(104) : T(746);
  static constexpr T kLinear = sizeof(T) == 4 ? T(20) : T(40);
  SK_FN Mish(double, double) {}
  SK_FN T value(T x) const {
    const T z = at_least(x, -kLimit), w = exponential_in_range(at_most(z, kLinear)), n = w * (w + T(2));
    return z * (n / (n + T(2)));
  }
  SK_FN T derivative(T x) const {
    const T z = at_most(at_least(x, -kLimit), kLinear), w = exponential_in_range(z), n = w * (w + T(2));
    const T r = T(1) / (n + T(2));
    // n r + 4 z (w r) ((w + 1) r), and w (w + 1) = n - w.
    const T smooth = r * (n + T(4) * z * ((n - w) * r));
    return x > kLinear ? T(1) : smooth;
  }
  SK_FN T second(T x) const {
    const T z = at_most(at_least(x, -kLimit), kLinear), w = exponential_in_range(z), n = w * (w + T(2));
    const T r = T(1) / (n + T(2)), slope = T(1) - T(2) * w * (n * r);
    const T smooth = T(4) * (w * r) * ((w + T(1)) * r) * (T(2) + z * slope / (T(1) + w));
    return x > kLinear ? T(0) : smooth;
  }
};

}  // namespace sat_kernels

// Every activation: SK_FIXED(operator, struct, its numbers in the operator's schema, and their C++ types), or
// SK_LEARNABLE(operator, struct, its parameter).
#define SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)                                  \
  SK_FIXED(silu, SiLU, "")                                                      \
  SK_FIXED(gelu, GELU, "")                                                      \
  SK_FIXED(gelu_tanh, GELUTanh, "")                                             \
  SK_FIXED(softplus, Softplus, ", float beta, float threshold", double, double) \
  SK_FIXED(elu, ELU, ", float alpha", double)                                   \
  SK_FIXED(celu, CELU, ", float alpha", double)                                 \
  SK_FIXED(mish, Mish, "")                                                      \
  SK_LEARNABLE(parametric_softplus, ParametricSoftplus, "alpha")                \
  SK_LEARNABLE(smooth_relu, SmoothReLU, "beta")
