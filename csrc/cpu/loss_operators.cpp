// The losses on the CPU.
#include "../loss_operators.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

struct Cpu {
  static constexpr bool kReadsLabels = true;
  static void losses(const Tensor& logits, const LossJob& job) {
    // Numbers of 8 bytes that are held for each class: two rows of powers, at most, and 16-bit rows in float.
    const DType dtype = dtype_of(logits);
    const int64_t held = dtype == DType::float32 || dtype == DType::float64 ? 2 : 6;
    const auto kernel = attack_kernels().losses.of[int(family_of(job.loss))][int(dtype)];
    over_samples(job.rows, job.classes, 8 * held * job.classes,
                 [&](int64_t begin, int64_t end, void* room) { kernel(job, begin, end, room); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_loss_operators<sat_kernels::cpu::Cpu>(m);
}
