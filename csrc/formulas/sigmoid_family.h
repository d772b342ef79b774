// x sigmoid(beta x) and its relatives.
#pragma once

#include "exponential.h"

namespace sat_kernels {

// z = factor * x where sigmoid needs it, with x cut before the product: 0 * inf would be NaN.
template <class T> struct SigmoidArgument {
  T factor;
  Range<T> range;
  SK_FN explicit SigmoidArgument(T factor) : factor(factor) {
    const T inverse = loose_quotient(T(1), factor), a = kSigmoidLow<T> * inverse, b = kSigmoidHigh<T> * inverse;
    range.low = at_least(a < b ? a : b, -FloatBits<T>::kLargest);
    range.high = at_most(a < b ? b : a, FloatBits<T>::kLargest);
  }
  SK_FN T operator()(T x) const { return factor * range.cut(x); }
};

template <class T> struct SiLU {
  // x sigmoid(x).
  Range<T> range{kSigmoidLow<T>, kSigmoidHigh<T>};
  SK_FN SiLU(T, T) {}
  SK_FN T value(T x) const {
    const T z = at_least(x, range.low);
    return z * sigmoid(at_most(z, range.high));
  }
  SK_FN T derivative(T x) const {
    const T z = range.cut(x);
    const auto l = logistic(z);
    return l.s + z * l.s * l.q;
  }
  SK_FN T second(T x) const {
    const T z = range.cut(x);
    const auto l = logistic(z);
    return l.s * l.q * (T(2) + z * (l.q - l.s));
  }
};

template <class T> struct Swish {
  // x sigmoid(beta x).
  static constexpr int kParameters = 1;
  SigmoidArgument<T> argument;
  SK_FN Swish(T beta, T) : argument(beta) {}
  SK_FN T value(T x) const { return vanishing_product(x, sigmoid(argument(x))); }
  SK_FN T derivative(T x) const {
    const T z = argument(x);
    const auto l = logistic(z);
    return l.s + z * l.s * l.q;
  }
  SK_FN T second(T x) const {
    const T z = argument(x);
    const auto l = logistic(z);
    return argument.factor * (l.s * l.q) * (T(2) + z * (l.q - l.s));
  }
  SK_FN Gradients<T, 1> parameters(T x) const {
    const T cut = argument.range.cut(x);
    const auto l = logistic(argument.factor * cut);
    return {(cut * l.s) * (cut * l.q)};
  }
};

template <class T> struct PSSiLU {
  // x (sigmoid(alpha x) - beta) / (1 - beta).
  static constexpr int kParameters = 2;
  SigmoidArgument<T> argument;
  T beta, inverse;
  SK_FN PSSiLU(T alpha, T beta) : argument(alpha), beta(beta), inverse(reciprocal(T(1) - beta)) {}
  SK_FN T value(T x) const {
    return vanishing_product(x, (sigmoid(argument(x)) - beta) * inverse);
  }
  SK_FN T derivative(T x) const {
    const T z = argument(x);
    const auto l = logistic(z);
    return ((l.s - beta) + z * l.s * l.q) * inverse;
  }
  SK_FN T second(T x) const {
    const T z = argument(x);
    const auto l = logistic(z);
    return argument.factor * inverse * (l.s * l.q) * (T(2) + z * (l.q - l.s));
  }
  SK_FN Gradients<T, 2> parameters(T x) const {
    const T cut = argument.range.cut(x);
    const auto l = logistic(argument.factor * cut);
    // l.q is w / (1 + w) with w = exp(-z); on a GPU the quotient is 0 where 1 / w is denormal.
    const T q = negative(cut * argument.factor) ? T(1) - l.s : l.q;
    return {(cut * l.s) * (cut * l.q) * inverse, vanishing_product(x, -q) * inverse * inverse};
  }
};

template <class T> struct GELUTanh {
  // x sigmoid(v), v = 2 sqrt(2/pi) (x + 0.044715 x^3), which is 0.5 x (1 + tanh(v/2)) without its cancellation.
  // x is cut where v reaches the ends of sigmoid's range.
  static constexpr T k2 = T(1.59576912160573071176), kCubic = T(0.044715);
  Range<T> range{sizeof(T) == 4 ? T(-10.708) : T(-21.5225), sizeof(T) == 4 ? T(9.263) : T(20.7669)};
  SK_FN GELUTanh(T, T) {}
  SK_FN static T inner(T z) { return z * (k2 + (k2 * kCubic) * (z * z)); }
  SK_FN static T slope(T z) { return k2 + (T(3) * k2 * kCubic) * (z * z); }
  SK_FN T value(T x) const {
    const T z = at_least(x, range.low);
    return z * sigmoid(inner(at_most(z, range.high)));
  }
  SK_FN T derivative(T x) const {
    const T z = range.cut(x);
    const auto l = logistic(inner(z));
    return l.s + z * l.s * l.q * slope(z);
  }
  SK_FN T second(T x) const {
    const T z = range.cut(x), dv = slope(z);
    const auto l = logistic(inner(z));
    return l.s * l.q * (T(2) * dv + z * (T(6) * k2 * kCubic * z + dv * dv * (l.q - l.s)));
  }
};

template <class T> struct ReLUSmoothBackward {
  // max(x, 0), but its gradient is that of softplus(alpha x) / alpha.
  T alpha, zero = T(0);
  Range<T> range{kSigmoidLow<T>, kSigmoidHigh<T>};
  SK_FN ReLUSmoothBackward(T alpha, T) : alpha(alpha) {}
  SK_FN T argument(T x) const { return range.cut(alpha * x); }
  SK_FN T value(T x) const { return at_least(x, zero); }
  SK_FN T derivative(T x) const { return sigmoid(argument(x)); }
  SK_FN T second(T x) const {
    const auto l = logistic(argument(x));
    return alpha * (l.s * l.q);
  }
};

}  // namespace sat_kernels
