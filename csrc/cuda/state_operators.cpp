// The state of attacks on a GPU.
#include "../state_operators.h"

#include "state.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

struct Cuda {
  static void keep_best(const Tensor& x_adv, const KeepBest& job) {
    const On on(x_adv);
    run_keep_best(job, dtype_of(x_adv), on.stream);
    check(cudaGetLastError(), "kernel launch");
  }

  static void apgd_update(const Tensor& x_adv, const Tensor& grad, const ApgdUpdate& job) {
    const On on(x_adv);
    run_apgd_update(job, dtype_of(x_adv), dtype_of(grad), on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_state_operators<sat_kernels::cuda::Cuda>(m);
}
