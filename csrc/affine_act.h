// What the kernels that follow a convolution are asked to do, on every device: bias, residual, affine map, activation.
#pragma once

#include "latent.h"

namespace sat_kernels {

// sum += bias + residual; out = f(scale sum + shift). Backward: out = scale grad f'(scale sum + shift) + grad_sum, which is
// the gradient at both addends. Dense and in one layout; with T the type that S, the type of sum, is computed in, tensors
// per channel are of T, others of S. Element i is of channel i / inner % channels.
struct AffineAct {
  const void* grad;      // backward
  const void* grad_sum;  // backward, or null
  void* sum;             // written forward, where there is a bias or a residual
  const void* residual;  // forward, or null
  const void *bias, *scale, *shift;  // of each channel, or null
  void* out;
  ActivationOf f;
  int64_t size, channels, inner;
};

}  // namespace sat_kernels
