// The CPU kernels: flat loops over dense memory, once per instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "../elementwise.h"

namespace sat_kernels::cpu {

// Elements [begin, end). parameter_backward returns the sum of grad * df/dp, other passes 0.
using ElementwiseKernel = double (*)(const Elementwise&, int64_t begin, int64_t end);

using StepKernel = void (*)(const Step&, int64_t begin, int64_t end);

struct Kernels {
  const char* instruction_set;
  ElementwiseKernel activation[int(Activation::count)][int(Pass::count)][int(DType::count)];
  StepKernel step_linf[2][int(DType::count)];  // [float, double][dtype of the gradient]
};

// Those for this machine.
const Kernels& kernels();

}  // namespace sat_kernels::cpu
