// The losses on the CPU.
#include "../loss_operators.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

struct Cpu {
  static constexpr bool kReadsLabels = true;
  static void losses(const Tensor& logits, const LossJob& job) {
    const auto kernel = attack_kernels().losses.of[int(family_of(job.loss))][int(dtype_of(logits))];
    // Two rows' powers, at most.
    over_samples(job.rows, job.classes, 16 * job.classes,
                 [&](int64_t begin, int64_t end, void* room) { kernel(job, begin, end, room); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_loss_operators<sat_kernels::cpu::Cpu>(m);
}
