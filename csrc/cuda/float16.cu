#include "kernels.cuh"

namespace sat_kernels::cuda {
const Kernels& kernels_float16() { return kernels_for<__half>(); }
}  // namespace sat_kernels::cuda
