// The Linf steps of projected gradient descent, and the rounding that keeps them inside the ball.
//
// Rounding to nearest leaves 1.5 to 8.8 % of the pixels one unit outside of the ball. The proofs below need
// gradual underflow, which is torch's default.
#pragma once

#include "number.h"

namespace sat_kernels {

// x with its sign flipped where `sign` is negative.
template <class T> SK_FN T flip_sign(T x, T sign) {
  using Bits = typename FloatBits<T>::Unsigned;
  return bit_cast<T>(Bits(bit_cast<Bits>(x) ^ (bit_cast<Bits>(sign) & ~(~Bits(0) >> 1))));
}

// a + b rounded down, for b >= 0: the sum to nearest, moved down by one unit if it is larger than the true sum.
// Where |a| >= b, sum - a is exact, else sum - b is (Dekker's Fast2Sum), and rounding the other difference
// cannot carry it past the number that it is compared with. So the two comparisons together decide exactly.
template <class T> SK_FN T sum_rounded_down(T a, T b) {
#if defined(__CUDA_ARCH__)
  // A GPU has an instruction for it, in which a zero that is the sum of others gets the wrong sign: hence + 0.
  if constexpr (sizeof(T) == 8) {
    return __dadd_rd(a, b) + T(0);
  } else {
    return __fadd_rd(a, b) + T(0);
  }
#else
  using Bits = typename FloatBits<T>::Signed;
  const T sum = a + b;
  const Bits too_large = -Bits(sum - a > b) | -Bits(sum - b > a);
  // The next number towards -inf: bit patterns grow away from zero. A sum of zero is exact.
  const Bits unit = Bits(1) | (bit_cast<Bits>(sum) >> (8 * sizeof(T) - 1));
  return bit_cast<T>(Bits(bit_cast<Bits>(sum) - (too_large & unit)));
#endif
}

template <class T> struct LinfStep {
  T alpha, eps, lowest, highest;

  // To the ball around x, then to the box. NaN stays: every selection keeps what compares false.
  SK_FN T project(T moved, T x) const {
    // Mirrored so that the way went up from x: then only the upper bound matters.
    const T side = moved - x, top = sum_rounded_down(flip_sign(x, side), eps), mirrored = flip_sign(moved, side);
    const T projected = flip_sign(mirrored > top ? top : mirrored, side);
    return at_most(at_least(projected, lowest), highest);
  }

  // The step from x_adv along the sign of g, projected. A NaN gradient makes no step.
  template <class G> SK_FN T operator()(T x_adv, G g, T x) const {
    return project(x_adv + (absolute(g) > G(0) ? flip_sign(alpha, T(g)) : T(0)), x);
  }

  // APGD's step (arXiv 2003.01690): three quarters of the way to where the step leads, and a quarter of the last one.
  template <class G> SK_FN T with_momentum(T x_adv, G g, T x, T x_prev, bool first) const {
    const T led = (*this)(x_adv, g, x);
    const T moved = x_adv + times<3>(led - x_adv) + times<1>(x_adv - x_prev);
    return first ? led : project(moved, x);
  }

 private:
  // Quarters / 4 * v. The sign comes by bits: a product with the next sum in one instruction would not be rounded.
  template <int Quarters> SK_FN static T times(T v) { return flip_sign(T(Quarters * 0.25) * absolute(v), v); }
};

}  // namespace sat_kernels
