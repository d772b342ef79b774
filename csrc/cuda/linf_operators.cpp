// The steps of the Linf ball on a GPU.
#include "../linf_operators.h"

#include "steps.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

struct Cuda {
  static void linf(const PreparedStep& step) { run(&cuda::linf, step); }
  static void apgd_linf(const PreparedStep& step) { run(&cuda::apgd_linf, step); }
  static void momentum_linf(const PreparedStep& step) { run(&cuda::momentum_linf, step); }

 private:
  static void run(void (*kernel)(const AttackStep&, DType, DType, cudaStream_t), const PreparedStep& step) {
    check_sample_size(step.job);
    const On on(step.target());
    kernel(step.job, dtype_of(step.target()), step.grad, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_linf_operators<sat_kernels::cuda::Cuda>(m);
}
