#include "kernels.cuh"

namespace sat_kernels::cuda {
const Kernels& kernels_bfloat16() { return kernels_for<__nv_bfloat16>(); }
}  // namespace sat_kernels::cuda
