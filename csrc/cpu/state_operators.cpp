// The state of attacks on the CPU.
#include "../state_operators.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

struct Cpu {
  static void keep_best(const Tensor& x_adv, const KeepBest& job) {
    const auto kernel = attack_kernels().state.keep_best[x_adv.scalar_type() == ScalarType::Double];
    over_samples(job.samples, job.sample_size, 0, [&](int64_t begin, int64_t end, void*) { kernel(job, begin, end); });
  }

  static void apgd_update(const Tensor& x_adv, const Tensor& grad, const ApgdUpdate& job) {
    const int width = dtype_of(grad) == DType::float64 ? 2 : dtype_of(grad) == DType::float32 ? 1 : 0;
    const auto kernel = attack_kernels().state.apgd_update[x_adv.scalar_type() == ScalarType::Double][width];
    over_samples(job.samples, job.sample_size, 0, [&](int64_t begin, int64_t end, void*) { kernel(job, begin, end); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_state_operators<sat_kernels::cpu::Cpu>(m);
}
