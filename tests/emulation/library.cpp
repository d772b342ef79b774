// The GPU's kernels, for ctypes.
#include "controls.h"
#include "cuda/channels.cuh"
#include "cuda/kernels.h"

using namespace sat_kernels;

extern "C" {

const char* elementwise(int activation, int pass, int dtype, const Elementwise* job, int64_t size, void* partial) {
  return emulator::error_of([&] {
    cuda::kernels(DType(dtype)).elementwise(Activation(activation), Pass(pass), *job, size, partial, nullptr);
  });
}

int64_t partial_sums(int dtype, const Elementwise* job, int64_t size) {
  return cuda::kernels(DType(dtype)).partial_sums(*job, size);
}

// What a thread makes of its terms.
float added_up(const float* terms, int64_t size) {
  cuda::Sum<float> sum;
  for (int64_t i = 0; i < size; ++i) sum.add(terms[i]);
  return sum.value();
}
}
