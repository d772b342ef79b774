// What the kernels of perturbed activations are asked to do, on every device.
#pragma once

#include "steps.h"

namespace sat_kernels {

// An activation, and what its formula is made from: numbers, or, where they are learnable, tensors of `channels` elements
// in the type that is computed in. channels == 1: the same for all.
struct ActivationOf {
  Activation which;
  double numbers[kMostNumbers];
  const void* parameters[kMostNumbers];
  int64_t channels;
};

enum class LatentPass { forward, backward, linf, l2 };

// With T the type that S, the type of z, is computed in: grad, z and out are of S, delta and sizes of T. Dense and in one
// layout, as in AttackStep.
struct LatentJob {
  const void* grad;
  const void* z;
  void* delta;  // changed by steps alone
  // f(z + delta), forward; grad f'(z + delta), backward, and beside a step unless it is null.
  void* out;
  ActivationOf f;
  int64_t samples, sample_size, channels, inner;
  // Of a step: delta's ball, and the bounds of z + delta, which z is within.
  Size eps, alpha, lo, hi;
};

inline bool is_bounded(const LatentJob& job) {
  return job.lo.of || job.hi.of || job.lo.number > -FloatBits<double>::kLargest ||
         job.hi.number < FloatBits<double>::kLargest;
}

}  // namespace sat_kernels
