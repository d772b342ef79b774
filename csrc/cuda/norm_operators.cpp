// The steps that need sums over a sample, on a GPU.
#include "../norm_operators.h"

#include "steps.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

struct Cuda {
  static void l2(const PreparedStep& step) { run(&cuda::l2, step); }
  static void apgd_l2(const PreparedStep& step) { run(&cuda::apgd_l2, step); }
  static void l1(const PreparedStep& step) {
    check_sample_size(step.job);
    const On on(step.target());
    const DType x = dtype_of(step.target());
    const int64_t bytes = l1_room(step.job, x);
    Tensor room;
    if (bytes > 0) room = torch::stable::new_empty(step.target(), {bytes / 8}, ScalarType::Double);
    cuda::l1(step.job, x, step.grad, bytes > 0 ? room.mutable_data_ptr() : nullptr, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }

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
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_norm_operators<sat_kernels::cuda::Cuda>(m);
}
