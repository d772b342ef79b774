// The CPU kernels: flat loops over dense memory, once per instruction set and chosen at run time.
#pragma once

#include <cstdint>

#include "../elementwise.h"

namespace sat_kernels::cpu {

// Elements [begin, end). parameter_backward adds grad * df/dp to sums[parameter][channel]; others leave `sums` alone.
using ElementwiseKernel = void (*)(const Elementwise&, int64_t begin, int64_t end, double* sums);

// Linf steps of delta = out along grad f'(input + delta), elements [begin, end), all float.
using StepKernel = void (*)(const Elementwise&, float eps, float alpha, int64_t begin, int64_t end);

struct Kernels {
  const char* instruction_set;
  ElementwiseKernel activation[int(Activation::count)][int(Pass::count)][int(DType::count)];
  StepKernel step[int(Activation::count)];
};

// Those for this machine.
const Kernels& kernels();

}  // namespace sat_kernels::cpu
