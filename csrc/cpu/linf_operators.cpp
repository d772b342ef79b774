// The steps of the Linf ball on the CPU.
#include "../linf_operators.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

// Elements per task: about 10 us of work.
constexpr int64_t kGrain = 16384;

struct Cpu {
  static void linf(const PreparedStep& step) { flat(attack_kernels().steps.linf, step); }
  static void apgd_linf(const PreparedStep& step) { flat(attack_kernels().steps.apgd_linf, step); }
  static void momentum_linf(const PreparedStep& step) {
    const auto kernel = attack_kernels().steps.momentum_linf[int(dtype_of(step.target()))][int(step.grad)];
    over_samples(step.job.samples, step.job.sample_size, 0,
                 [&](int64_t begin, int64_t end, void* room) { kernel(step.job, begin, end, room); });
  }

 private:
  static void flat(const LinfKernel (&kernels)[2][int(DType::count)], const PreparedStep& step) {
    const auto kernel = kernels[int(dtype_of(step.target()))][int(step.grad)];
    torch::stable::parallel_for(0, step.target().numel(), kGrain,
                                [&](int64_t begin, int64_t end) { kernel(step.job, begin, end); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_linf_operators<sat_kernels::cpu::Cpu>(m);
}
