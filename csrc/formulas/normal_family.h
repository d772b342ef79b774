// Activations by the normal distribution.
#pragma once

#include "normal.h"

namespace sat_kernels {

template <class T> struct GELU {
  // x Phi(x).
  Range<T> range{-kNormalLimit<T>, kNormalLimit<T>};
  SK_FN GELU(T, T) {}
  SK_FN T value(T x) const {
    const T low = at_least(x, range.low), z = at_most(low, range.high);
    return low * normal(z).cdf(z);
  }
  SK_FN T derivative(T x) const {
    const T z = range.cut(x);
    const auto n = normal(z);
    return n.cdf(z) + z * n.density;
  }
  SK_FN T second(T x) const {
    const T z = range.cut(x);
    return normal(z).density * (T(2) - z * z);
  }
};

template <class T> struct SMU {
  // alpha x + c x Phi(z), c = 1 - alpha, z = sqrt(2) mu c x.
  static constexpr int kParameters = 2;
  T alpha, c, factor;
  Range<T> range;
  SK_FN SMU(T alpha, T mu) : alpha(alpha), c(T(1) - alpha) {
    // An infinite mu, as 1e6 is in float16, makes it a leaky ReLU.
    factor = Range<T>{-FloatBits<T>::kLargest, FloatBits<T>::kLargest}.cut(T(1.41421356237309504880) * mu * c);
    // x is cut before the product, since 0 * inf would be NaN.
    range.high = at_most(loose_quotient(kNormalLimit<T>, absolute(factor)), FloatBits<T>::kLargest);
    range.low = -range.high;
  }
  SK_FN T value(T x) const {
    const T z = factor * range.cut(x);
    return vanishing_product(x, alpha + c * normal(z).cdf(z));
  }
  SK_FN T derivative(T x) const {
    const T z = factor * range.cut(x);
    const auto n = normal(z);
    return alpha + c * (n.cdf(z) + z * n.density);
  }
  SK_FN T second(T x) const {
    const T z = factor * range.cut(x);
    return c * factor * normal(z).density * (T(2) - z * z);
  }
  SK_FN Gradients<T, 2> parameters(T x) const {
    const T inner = range.cut(x), z = factor * inner;
    const auto n = normal(z);
    const T scaled = c * inner;
    return {vanishing_product(x, n.cdf(-z) - z * n.density),
            (T(1.41421356237309504880) * n.density * scaled) * scaled};
  }
};

}  // namespace sat_kernels
