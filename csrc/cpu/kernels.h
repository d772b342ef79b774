// The CPU kernels: flat loops over dense memory, once per instruction set and chosen at run time.
#pragma once

#include <cstdint>

namespace sat_kernels::cpu {

enum class Activation {
#define SK_ENUM(name, Formula, ...) name,
  SK_ACTIVATIONS(SK_ENUM, SK_ENUM)
#undef SK_ENUM
      count
};
enum class Pass { forward, backward, double_backward, parameter_backward, count };
enum class DType { float32, float64, bfloat16, float16, count };

// A pass's tensors, in the same dense layout. Outputs may be inputs, element for element.
struct Elementwise {
  const void* grad_grad;
  const void* grad;
  const void* input;
  void* out;
  void* grad_out;
  double numbers[2];
};
// Elements [begin, end). parameter_backward returns the sum of grad * df/dp, other passes 0.
using ElementwiseKernel = double (*)(const Elementwise&, int64_t begin, int64_t end);

struct Step {
  void* x_adv;
  const void* grad;
  const void* x;
  double lowest, highest;
};
using StepKernel = void (*)(const Step&, double eps, double alpha, int64_t begin, int64_t end);

struct Kernels {
  const char* instruction_set;
  ElementwiseKernel activation[int(Activation::count)][int(Pass::count)][int(DType::count)];
  StepKernel step_linf[2][int(DType::count)];  // [float, double][dtype of the gradient]
};

// Those for this machine.
const Kernels& kernels();

}  // namespace sat_kernels::cpu
