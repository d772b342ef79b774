// Steps of a perturbation delta of z, the input of an activation: to a ball around 0, and z + delta between bounds.
#pragma once

#include "l2.h"

namespace sat_kernels {

// lo <= z + delta <= hi in exact arithmetic, if lo <= z <= hi; delta only comes nearer to 0 then. downward: where sums are
// rounded down.
template <bool downward = false, class T> SK_FN T within_bounds(T delta, T z, T lo, T hi) {
  const auto below = [](T a, T b) SK_INLINE_LAMBDA { return downward ? a - b : sum_rounded_down(a, -b); };
  // Comparisons, since a GPU's maximum hands on NaN: where z is NaN, delta stays.
  const T lowest = -below(z, lo), highest = below(hi, z), high_enough = delta < lowest ? lowest : delta;
  return high_enough > highest ? highest : high_enough;
}

// The Linf step along the sign of g; NaN and 0 make none.
template <class T> SK_FN T latent_linf_step(T delta, T g, T alpha, T eps) {
  const T moved = delta + (absolute(g) > T(0) ? flip_sign(alpha, g) : T(0));
  return at_most(at_least(moved, -eps), eps);
}

// The L2 step of a sample; bounded(delta, at) is delta within its bounds.
template <class Team, class T, class Gradient, class Bounded>
SK_FN void latent_l2_step(Team team, T* delta, const Gradient& gradient, int64_t size, T alpha, T eps,
                          const Bounded& bounded) {
  constexpr T most = FloatBits<T>::kLargest;
  const auto d = [=](auto at) SK_INLINE_LAMBDA { return team.read(delta, at); };
  with_l2_move(team, size, d, gradient, alpha, Ball<T>{eps, {-most, most}}, [=](const auto& move) {
    team.each_downward(size, [=](auto at) SK_INLINE_LAMBDA {
      team.write(delta, at, bounded(move(team.read(delta, at), gradient(at), T(0)), at));
    });
  });
}

}  // namespace sat_kernels
