// What the steps of the L2 and L1 balls have in common.
#pragma once

#include "perturbation.h"
#include "team.h"

namespace sat_kernels {

// x + delta, rounded towards x: the stored difference is no larger than |delta|. downward: where sums are rounded down.
template <bool downward = false, class T> SK_FN T moved_by(T x, T delta) {
  const T mirrored = flip_sign(x, delta), way = absolute(delta);
  return flip_sign(downward ? mirrored + way : sum_rounded_down(mirrored, way), delta);
}

// Beyond this, numbers count as this: so sums, and quotients by the least that l2.h scales a norm to, stay finite.
template <class T> constexpr T kFar = T(sizeof(T) == 8 ? 0x1p900 : 0x1p100);
// The least number and the rounding error of a number of 1 to 2.
template <class T> constexpr double kLeast = sizeof(T) == 8 ? 0x1p-1074 : 0x1p-149;
template <class T> constexpr double kRounding = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24;

template <class T> SK_FN T not_far(T x) { return at_most(at_least(x, -kFar<T>), kFar<T>); }
template <class T> SK_FN bool is_infinite(T x) { return absolute(x) > FloatBits<T>::kLargest; }

// condition ? a : b, without a branch: with one, loops are not vectorised.
template <class T> SK_FN T chosen(bool condition, T a, T b) {
  using Bits = typename FloatBits<T>::Unsigned;
  const Bits mask = -Bits(condition);
  return bit_cast<T>(Bits((bit_cast<Bits>(a) & mask) | (bit_cast<Bits>(b) & ~mask)));
}

// Where a step ends.
template <class T> struct Ball {
  T eps;
  Range<T> box;
};

// Where there is only the projection.
template <class T> struct NoGradient {
  static constexpr bool exists() { return false; }
  template <class At> SK_FN T operator()(At) const { return T(0); }
};

}  // namespace sat_kernels
