// The normal distribution and the error function.
#pragma once

#include "exponential.h"

namespace sat_kernels {

// Where the density is 0, once rounded.
template <class T> constexpr T kNormalLimit = sizeof(T) == 4 ? T(14.47) : T(38.617);

// The normal distribution at z: Phi(-|z|), its lower tail, and the density, both from one exponential.
template <class T> struct Normal {
  T tail, density;
  // Phi(z). 1 + erf would lose every digit of the left tail.
  SK_FN T cdf(T z) const { return negative(z) ? tail : T(1) - tail; }
};
// For |z| <= kNormalLimit.
template <class T> SK_FN Normal<T> normal(T z) {
  const T a = absolute(z);
  const T e = lifted_exponential(T(-0.5) * a * a);
  const T d = reciprocal(a + T(4)), q = (a - T(4)) * d;
  T g;
  if constexpr (sizeof(T) == 4) {
    g = polynomial(q, 0.755285111077668638f, -0.607897130283186885f, 0.387137860426670721f,
                      -0.186507626724596551f, 0.0604103685540722459f, -0.00762749944633650261f,
                      -0.00363554220447511379f, 0.00171543804982175515f, 0.000485362978478064347f);
  } else {
    g = polynomial(q, 0.755285130415751672, -0.6078966419718902, 0.387137400742163458, -0.186521857959934528,
                      0.0603965748931864078, -0.00754018895626554936, -0.00347969240249559582,
                      0.00163081829097139494, 0.000133344551284876707, -0.000231093568304999208,
                      -1.90888930493732401e-6, 0.0000351383395051875496, 7.15969749653720602e-7,
                      -5.90288782828690067e-6, -6.21153892271516008e-7, 9.94370492926105018e-7,
                      2.49898036861943227e-7, -1.32621489965569353e-7, -5.92188572172263276e-8,
                      7.02174289418517267e-9, 5.25137606530280965e-9);
  }
  return {e * (g * (d * kUnlift<T>)), T(0.398942280401432678) * kUnlift<T> * e};
}

// erf(h) for h >= 0, relatively accurate.
template <class T> SK_FN T error_function(T h) {
  const T a = at_most(h, T(6)), low = at_most(a, T(1)), z = low * low;
  const T small = low * polynomial(z, 1.12837916709551257, -0.376126389031835196, 0.112837916709441859,
                                      -0.0268661706431116535, 0.00522397760611992464, -0.000854832592938005164,
                                      0.000120552935787395736, -0.0000149247123350607891,
                                      1.64471319525368974e-6, -1.62063164896353735e-7, 1.3710991461964517e-8,
                                      -7.77948786413541956e-10);
  return a < T(1) ? small : T(1) - T(2) * normal(a * T(1.41421356237309504880)).tail;
}

}  // namespace sat_kernels
