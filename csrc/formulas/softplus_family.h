// log(1 + exp(x)), and what replaces or contains it.
#pragma once

#include "exponential.h"
#include "logarithm.h"

namespace sat_kernels {

// log(1 + exp(z)) for z <= 0, relatively accurate.
template <class T> SK_FN T softplus_tail(T z, T low) {
  return log_one_plus_fraction(lifted_exponential(at_least(z, low)) * kUnlift<T>);
}

template <class T> struct Softplus {
  // log(1 + exp(beta x)) / beta, and x where beta x > threshold, as torch has it.
  T beta, inverse, threshold, linear;
  Range<T> range{kSigmoidLow<T>, kSigmoidHigh<T>};
  SK_FN Softplus(T beta, T threshold)
      : beta(beta), inverse(T(1) / beta), threshold(threshold), linear(at_most(threshold, kSigmoidHigh<T>)) {}
  SK_FN T value(T x) const {
    const T z = beta * x;
    const T smooth = (positive_part(z) + softplus_tail(minus_absolute(z), range.low)) * inverse;
    return z > threshold ? x : smooth;
  }
  // Where sigmoid is 1, if above the threshold.
  SK_FN T argument(T x) const {
    const T z = beta * x;
    return at_least(z > linear ? range.high : z, range.low);
  }
  SK_FN T derivative(T x) const { return sigmoid(argument(x)); }
  SK_FN T second(T x) const {
    const auto l = logistic(argument(x));
    return beta * (l.s * l.q);
  }
};

template <class T> struct ParametricSoftplus {
  // Softplus without a threshold.
  static constexpr int kParameters = 1;
  T alpha, inverse;
  Range<T> range{kSigmoidLow<T>, kSigmoidHigh<T>};
  SK_FN ParametricSoftplus(T alpha, T) : alpha(alpha), inverse(reciprocal(alpha)) {}
  SK_FN T argument(T x) const { return range.cut(alpha * x); }
  SK_FN T value(T x) const {
    return positive_part(x) + softplus_tail(minus_absolute(alpha * x), range.low) * inverse;
  }
  SK_FN T derivative(T x) const { return logistic(argument(x)).s; }
  SK_FN T second(T x) const {
    const auto l = logistic(argument(x));
    return alpha * (l.s * l.q);
  }
  SK_FN Gradients<T, 1> parameters(T x) const {
    // -(|z| p - log(1 - p)) / alpha^2 with p = sigmoid(-|z|). The plain (x s - f) / alpha loses everything for
    // large x.
    const T z = argument(x);
    const auto l = logistic(z);
    const T p = at_most(l.s, l.q);
    return {-(absolute(z) * p + log_of_complement(p)) * inverse * inverse};
  }
};

template <class T> struct Mish {
  // x tanh(softplus(x)) = x n / (n + 2), n = w (w + 2), w = exp(x): no logarithm, no tanh.
  // w and n come multiplied by 2^kLift, which the quotients do without.
  static constexpr T kTwo = T(2) * kLifted<T>;
  // Above, the slope is 1: the upper end is a point where its rounded value is, too.
  Range<T> range{kLiftedZero<T>, sizeof(T) == 4 ? T(30.0625) : T(40)};
  SK_FN Mish(T, T) {}
  SK_FN static T lifted_n(T w) { return w * (w * kUnlift<T> + T(2)); }
  SK_FN T value(T x) const {
    const T z = at_least(x, range.low), n = lifted_n(lifted_exponential(at_most(z, range.high)));
    return z * quotient(n, n + kTwo);
  }
  SK_FN T derivative(T x) const {
    const T z = range.cut(x), w = lifted_exponential(z), n = lifted_n(w), r = reciprocal(n + kTwo);
    // n r + 4 z (w r) ((w + 1) r), and w (w + 1) = n - w.
    return r * (n + (T(4) * kLifted<T>) * z * ((n - w) * r));
  }
  SK_FN T second(T x) const {
    const T z = range.cut(x), w = lifted_exponential(z), n = lifted_n(w), r = reciprocal(n + kTwo);
    const T slope = kLifted<T> - T(2) * w * (n * r);
    return T(4) * (w * r) * (r * (T(2) * (w + kLifted<T>) + z * slope));
  }
};

template <class T> struct Squareplus {
  // (x + r) / 2, r = sqrt(x^2 + b). Where x < 0 the sum cancels (1e6 ulp at b = 0.01), and is b / (r - x).
  static constexpr int kParameters = 1;
  T b, half, largest = FloatBits<T>::kLargest;
  SK_FN Squareplus(T b, T) : b(b), half(T(0.5) * b) {}
  // Infinite where x^2 is, as is right for what it divides.
  SK_FN T root(T x) const { return square_root(x * x + b); }
  SK_FN T value(T x) const {
    // Halves, since the sum may overflow where the result does not.
    const T a = absolute(x), h = T(0.5) * a + T(0.5) * at_least(square_root(at_most(a * a, largest) + b), a);
    return negative(x) ? loose_quotient(T(0.5) * half, h) : h;
  }
  SK_FN T derivative(T x) const {
    const T r = root(x), small = loose_quotient(half, r * (absolute(x) + r));
    return negative(x) ? small : T(1) - small;
  }
  SK_FN T second(T x) const {
    const T r = root(x);
    return loose_quotient(half, r * r * r);
  }
  SK_FN Gradients<T, 1> parameters(T x) const { return {loose_quotient(T(0.25), root(x))}; }
};

}  // namespace sat_kernels
