// The operators on a GPU: launches, scratch memory.
#include "../operators.h"
#include "kernels.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

struct Cuda {
  static void run(Activation activation, Pass pass, const Tensor& input, const Elementwise& job) {
    const DType dtype = dtype_of(input);
    const Kernels& k = kernels(dtype);
    const int64_t size = input.numel();
    const bool sums = pass == Pass::parameter_backward;
    if (size == 0 && !sums) return;
    const On on(input);
    if (size == 0) {
      const size_t bytes = job.channels * (dtype == DType::float64 ? sizeof(double) : sizeof(float));
      for (void* grads : job.parameter_grads) {
        if (grads != nullptr) check(cudaMemsetAsync(grads, 0, bytes, on.stream), "cudaMemsetAsync");
      }
      return;
    }
    Tensor partial;
    if (sums) partial = torch::stable::new_empty(input, {k.partial_sums(job, size)}, opmath_of(input));
    k.elementwise(activation, pass, job, size, sums ? partial.mutable_data_ptr() : nullptr, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_operators<sat_kernels::cuda::Cuda>(m);
}
