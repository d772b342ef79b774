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

}  // namespace sat_kernels
