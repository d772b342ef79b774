// x erf(log(1 + exp(x))).
#pragma once

#include "exponential.h"
#include "logarithm.h"
#include "normal.h"

namespace sat_kernels {

// erf(h) and its derivative by x, where h = log(1 + exp(x)).
template <class T> struct SerfFactor {
  T value, slope;
};

// By the definition.
template <class T> struct SerfParts {
  T h, s, density;
  SK_FN explicit SerfParts(T z) {
    const T t = lifted_exponential(at_least(minus_absolute(z), kLiftedZero<T>)) * kUnlift<T>;
    const T d = reciprocal(T(1) + t);
    h = positive_part(z) + log_one_plus_fraction(t);
    s = negative(z) ? t * d : d;
    density = T(1.12837916709551257390) * exponential(-h * h);
  }
};
template <class T> SK_FN SerfFactor<T> serf_factor(T z) {
  const SerfParts<T> parts(z);
  return {error_function(parts.h), parts.density * parts.s};
}

// For float, erf(h) = 1 - exp(y) with y = log(erfc(h)), which is smooth in exp(x) where x < 0, and in x where x > 0:
// two polynomials side by side, and two for y', instead of log, erf and exp one after the other.
template <class T>
  requires(sizeof(T) == 4)
SK_FN SerfFactor<T> serf_factor(T x) {
  // Where a polynomial is not for this x, it is finite and not selected.
  const T t = lifted_exponential(x) * kUnlift<T>;
  const T left = t * polynomial(t, -1.12837919111397735f, -0.0724264739960509389f, 0.157633794191243347f,
                                       -0.127423111538042936f, 0.0836795319528932714f, -0.0442924486087276079f,
                                       0.0161865869619614711f, -0.00290012167423695857f);
  const T right = polynomial(x, -1.11792147120207422f, -1.06726261017513427f, -0.466542581658601628f,
                                    -0.106468801634154438f, -0.00638454220217856583f, 0.00411858319710167416f,
                                    0.000567279029141739845f, -0.000361680197169340115f,
                                    0.000039336423053338102f);
  const T left_slope = t * polynomial(t, 1.12837943941528992f, 0.144823737018233326f,
                                             -0.472354170626859054f, 0.505925748286150145f,
                                             -0.406245746795590912f, 0.24588373021850453f,
                                             -0.0973594930711855602f, 0.0182164168523679581f);
  const T right_slope = polynomial(x, 1.06727250270742563f, 0.932850090948156537f, 0.321002422686982131f,
                                          0.0208300137313326976f, -0.0134448603316087868f,
                                          -0.00939757994569936637f, 0.0053251837304955877f,
                                          -0.00098988900509520726f, 0.0000657626415363455895f);
  const auto half = half_exponential(negative(x) ? left : right);
  return {T(-2) * half.minus_one, T(2) * half.power * (negative(x) ? left_slope : right_slope)};
}

template <class T> struct Serf {
  // Above, erf(h) rounds to 1, and x exp(-h^2) counts no more beside it.
  Range<T> range{kLiftedZero<T>, sizeof(T) == 4 ? T(4.8) : T(9)};
  SK_FN Serf(T, T) {}
  SK_FN T value(T x) const {
    const T z = at_least(x, range.low);
    return z * serf_factor(at_most(z, range.high)).value;
  }
  SK_FN T derivative(T x) const {
    const T z = range.cut(x);
    const auto f = serf_factor(z);
    return f.value + z * f.slope;
  }
  SK_FN T second(T x) const {
    const T z = at_most(at_least(x, range.low), T(9));
    const SerfParts<T> p(z);
    return p.density * p.s * (T(2) + z * ((T(1) - p.s) - T(2) * p.h * p.s));
  }
};

}  // namespace sat_kernels
