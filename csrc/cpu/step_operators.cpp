// The steps of attacks on the CPU.
#include "../step_operators.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

// Elements per task: about 10 us of work.
constexpr int64_t kGrain = 16384;

// What an algorithm holds for each element: 8 bytes each.
constexpr int64_t kNumber = 8;

struct Cpu {
  static void linf(const PreparedStep& step) { flat(attack_kernels().steps.linf, step); }
  static void apgd_linf(const PreparedStep& step) { flat(attack_kernels().steps.apgd_linf, step); }
  static void momentum_linf(const PreparedStep& step) { by_sample(attack_kernels().steps.momentum_linf, step, 0); }
  static void l2(const PreparedStep& step) { by_sample(attack_kernels().steps.l2, step, made(step)); }
  static void l1(const PreparedStep& step) { by_sample(attack_kernels().steps.l1, step, 2 * kNumber + made(step)); }
  static void apgd_l2(const PreparedStep& step) { by_sample(attack_kernels().steps.apgd_l2, step, made(step)); }

 private:
  // A gradient in x_adv's type, 0 where the mask is false.
  static int64_t made(const PreparedStep& step) {
    return step.job.mask != nullptr || step.grad != dtype_of(step.target()) ? kNumber : 0;
  }

  static void flat(const LinfKernel (&kernels)[2][int(DType::count)], const PreparedStep& step) {
    const auto kernel = kernels[int(dtype_of(step.target()))][int(step.grad)];
    torch::stable::parallel_for(0, step.target().numel(), kGrain,
                                [&](int64_t begin, int64_t end) { kernel(step.job, begin, end); });
  }

  static void by_sample(const AttackStepKernel (&kernels)[2][int(DType::count)], const PreparedStep& step, int64_t held) {
    const auto kernel = kernels[int(dtype_of(step.target()))][int(step.grad)];
    over_samples(step.job.samples, step.job.sample_size, held * step.job.sample_size,
                 [&](int64_t begin, int64_t end, void* room) { kernel(step.job, begin, end, room); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_step_operators<sat_kernels::cpu::Cpu>(m);
}
