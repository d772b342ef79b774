// What a kernel is asked to do, on every device.
#pragma once

#include <cstdint>

#include "formulas/activations.h"

namespace sat_kernels {

enum class Activation {
#define SK_ENUM(name, ...) name,
  SK_ACTIVATIONS(SK_ENUM, SK_ENUM)
#undef SK_ENUM
      count
};
enum class Pass { forward, backward, double_backward, parameter_backward, count };
enum class DType { float32, float64, bfloat16, float16, count };

constexpr int kMostNumbers = 2;

// A pass's tensors, in the same dense layout. Outputs may be inputs, element for element.
struct Elementwise {
  const void* grad_grad;
  const void* grad;
  const void* input;
  void* out;
  void* grad_out;
  // What the formula is made from: numbers, or, where they are learnable, tensors in the type that is computed in,
  // with one element for each channel. Element i belongs to channel i / inner % channels.
  double numbers[kMostNumbers];
  const void* parameters[kMostNumbers];
  void* parameter_grads[kMostNumbers];
  int64_t channels, inner;
};

// x_adv, x: dense, float32 or float64. grad: in the same layout. One eps and alpha for all, or, where
// sample_size is not 0, one per so many consecutive elements, in x_adv's dtype.
struct Step {
  void* x_adv;
  const void* grad;
  const void* x;
  double eps, alpha;
  const void* sample_eps;
  const void* sample_alpha;
  int64_t sample_size;
  double lowest, highest;
};

}  // namespace sat_kernels
