// Random starts on a GPU.
#include "../start_operators.h"

#include "starts.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

struct Cuda {
  static void start(const Tensor& x_adv, const RandomStart& job) {
    const On on(x_adv);
    run_start(job, dtype_of(x_adv), on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_start_operators<sat_kernels::cuda::Cuda>(m);
}
