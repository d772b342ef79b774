// What a random start is made from, on every device.
#pragma once

#include "steps.h"

namespace sat_kernels {

// What the coordinates' noise is: U(-1, 1), N(0, 1), or Laplace's.
enum class Noise { none, uniform, normal, laplace };
// What becomes of it: scaled, and shortened where it is longer than eps; or given the length eps, eps u or
// eps u^(1 / elements), with u uniform in (0, 1).
enum class Radius { bounded, surface, uniform, volume, free };  // free: scaled only, since somebody else projects
enum class Norm { linf, l2, l1 };

// x, x_adv: dense and in one layout, samples of `sample_size` consecutive elements, of which element i is number
// (i % channels) * sample_size / channels + i / channels of the sample in its logical order.
struct RandomStart {
  const void* x;
  void* x_adv;
  int64_t samples, sample_size, channels;
  Noise noise;
  Radius radius;
  Norm norm;
  Size scale, eps;
  double lowest, highest;
  int64_t seed, restart;
  const int64_t* seed_of;  // null, or where the seed is, on the device
  const int64_t* restart_of;
  const int64_t* sample_ids;  // null: 0, 1, 2...
};

}  // namespace sat_kernels
