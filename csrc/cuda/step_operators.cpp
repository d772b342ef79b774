// The steps of attacks on a GPU.
#include "../step_operators.h"

#include "steps.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

struct Cuda {
  static void linf(const PreparedStep& step) { run(&cuda::linf, step); }
  static void apgd_linf(const PreparedStep& step) { run(&cuda::apgd_linf, step); }
  static void momentum_linf(const PreparedStep& step) { run(&cuda::momentum_linf, step); }
  static void l2(const PreparedStep& step) { run(&cuda::l2, step); }
  static void apgd_l2(const PreparedStep& step) { run(&cuda::apgd_l2, step); }
  static void l1(const PreparedStep& step) {
    const int64_t bytes = l1_room(step.job, dtype_of(step.target()));
    Tensor room;
    if (bytes > 0) room = torch::stable::new_empty(step.target(), {bytes / 8}, ScalarType::Double);
    void* memory = bytes > 0 ? room.mutable_data_ptr() : nullptr;
    run([=](const AttackStep& job, DType x, DType grad, cudaStream_t s) { cuda::l1(job, x, grad, memory, s); }, step);
  }

 private:
  template <class Kernel> static void run(const Kernel& kernel, const PreparedStep& step) {
    check_sample_size(step.job);
    const On on(step.target());
    kernel(step.job, dtype_of(step.target()), step.grad, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_step_operators<sat_kernels::cuda::Cuda>(m);
}
