// Random starts: noise of a length, added to a sample so that it stays in the ball and the box.
#pragma once

#include "../starts.h"
#include "random.h"
#include "team.h"

namespace sat_kernels {

template <class T> struct SampleStart {
  const T* x;
  T* x_adv;
  int64_t size;
  Radius radius;
  Norm norm;
  T scale, eps, lowest, highest;
  RandomKey key;
};

SK_FN float noise_of(Noise noise, uint32_t word) {
  const float u = symmetric_uniform(word);
  switch (noise) {
    case Noise::uniform: return u;
    case Noise::normal: return normal_of(u);
    case Noise::laplace: return laplace_of(u);
    default: return 0;
  }
}

// By how much of eps the noise is to be long.
SK_FN double radius_fraction(Radius radius, RandomKey key, int64_t size) {
  if (radius == Radius::surface) return 1;
  const double u = sample_fraction(key);
  return radius == Radius::uniform ? u : std::exp(std::log(u) / double(size));
}

// The noise's factor in Linf: such that its largest coordinate is as far out as wanted.
template <class T, class Team, class Noises>
SK_FN T linf_factor(const Team& team, const SampleStart<T>& s, const Noises& noise) {
  if (s.radius == Radius::bounded) return s.scale;
  const auto top = team.template most<1>(s.size, [=](auto at) SK_INLINE_LAMBDA {
    return Terms<float, 1>{{absolute(noise(at))}};
  });
  return T(double(s.eps) * radius_fraction(s.radius, s.key, s.size) / double(top.of[0]));
}

// The same in L2 and L1. Products with it add up to no more than eps, though they are rounded to T, and lengths are
// sums of up to 2^30 rounded terms.
template <class T, class Team, class Noises>
SK_FN double norm_factor(const Team& team, const SampleStart<T>& s, const Noises& noise) {
  if (s.radius == Radius::free) return double(s.scale);
  const auto sums = team.template sum<2>(s.size, [=](auto at) SK_INLINE_LAMBDA {
    const double n = double(absolute(noise(at)));
    return Terms<double, 2>{{n, n * n}};
  });
  const double length = s.norm == Norm::l1 ? sums.of[0] : std::sqrt(sums.of[1]);
  const double most = double(s.eps) * (1 - (sizeof(T) == 4 ? 0x1p-21 : 0x1p-22));
  if (s.radius == Radius::bounded) return double(s.scale) * length > most ? most / length : double(s.scale);
  return most * radius_fraction(s.radius, s.key, s.size) / length;
}

// `team` adds up, `everyone` (who may be more) writes. noise(at): of the element at `at`.
template <class T, class Team, class Everyone, class Noises>
SK_FN void start_linf(const Team& team, const Everyone& everyone, const SampleStart<T>& s, const Noises& noise) {
  const T factor = linf_factor(team, s, noise);
  everyone.each(s.size, [=](auto at) SK_INLINE_LAMBDA {
    const float n = noise(at);
    const T x = team.read(s.x, at);
    // The sign goes through its bit, which keeps product and sum from being contracted.
    const T moved = x + flip_sign(T(absolute(n)) * factor, T(n));
    team.write(s.x_adv, at, LinfStep<T>{T(0), s.eps, s.lowest, s.highest}(moved, T(n), x));
  });
}

template <class T, class Team, class Everyone, class Noises>
SK_FN void start_in_norm(const Team& team, const Everyone& everyone, const SampleStart<T>& s, const Noises& noise) {
  const double factor = norm_factor(team, s, noise);
  // Less by the smallest number, so that a product that is rounded to a denormal one is not larger than it was.
  const T least = bit_cast<T>(typename FloatBits<T>::Unsigned(1));
  everyone.each(s.size, [=](auto at) SK_INLINE_LAMBDA {
    const float n = noise(at);
    const T x = team.read(s.x, at), length = at_least(T(double(absolute(n)) * factor) - least, T(0));
    // Up from x in the mirror, rounded down: the stored difference is no larger than `length`.
    const T moved = flip_sign(sum_rounded_down(flip_sign(x, T(n)), length), T(n));
    team.write(s.x_adv, at, at_most(at_least(moved, s.lowest), s.highest));
  });
}

template <class T, class Team, class Everyone, class Noises>
SK_FN void random_start(const Team& team, const Everyone& everyone, const SampleStart<T>& s, const Noises& noise) {
  if (s.norm == Norm::linf) {
    start_linf(team, everyone, s, noise);
  } else {
    start_in_norm(team, everyone, s, noise);
  }
}

// What of the job is about `sample`.

}  // namespace sat_kernels
