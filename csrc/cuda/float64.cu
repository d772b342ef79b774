#include "kernels.cuh"

namespace sat_kernels::cuda {
const Kernels& kernels_float64() { return kernels_for<double>(); }
}  // namespace sat_kernels::cuda
