// Random starts on the CPU.
#include "../start_operators.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

struct Cpu {
  static void start(const Tensor& x_adv, const RandomStart& job) {
    const auto kernel = attack_kernels().starts.start[x_adv.scalar_type() == ScalarType::Double][int(job.noise)];
    over_samples(job.samples, job.sample_size, 8 * job.sample_size + 32,
                 [&](int64_t begin, int64_t end, void* room) { kernel(job, begin, end, room); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_start_operators<sat_kernels::cpu::Cpu>(m);
}
