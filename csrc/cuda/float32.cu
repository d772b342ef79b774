#include "kernels.cuh"

namespace sat_kernels::cuda {
const Kernels& kernels_float32() { return kernels_for<float>(); }
}  // namespace sat_kernels::cuda
