// The steps that need sums over a sample, on the CPU.
#include "../norm_operators.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {

namespace {

// What an algorithm holds for each element: 8 bytes each.
constexpr int64_t kNumber = 8;

struct Cpu {
  static void l2(const PreparedStep& step) { run(attack_kernels().steps.l2, step, 0); }
  static void l1(const PreparedStep& step) { run(attack_kernels().steps.l1, step, 2 * kNumber); }
  static void apgd_l2(const PreparedStep& step) { run(attack_kernels().steps.apgd_l2, step, 0); }

 private:
  static void run(const AttackStepKernel (&kernels)[2][int(DType::count)], const PreparedStep& step, int64_t held) {
    const auto kernel = kernels[int(dtype_of(step.target()))][int(step.grad)];
    const AttackStep& job = step.job;
    const bool makes_gradient = job.mask != nullptr || step.grad != dtype_of(step.target());
    over_samples(job.samples, job.sample_size, (held + makes_gradient * kNumber) * job.sample_size,
                 [&](int64_t begin, int64_t end, void* room) { kernel(job, begin, end, room); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_norm_operators<sat_kernels::cpu::Cpu>(m);
}
