// Perturbed activations and a network's first layer on the CPU.
#include "../conv_act_operators.h"

#include "attacks.h"
#include "conv_room.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

// Elements per task: about 10 us of work.
constexpr int64_t kGrain = 16384;

struct Cpu {
  static void latent(LatentPass pass, const LatentJob& job, const Tensor& z) {
    const LatentKernels& k = attack_kernels().latent;
    const int dtype = int(dtype_of(z));
    if (pass == LatentPass::l2) {
      return over_samples(job.samples, job.sample_size, 8 * job.sample_size,
                          [&](int64_t begin, int64_t end, void* room) { k.l2[dtype](job, begin, end, room); });
    }
    const auto kernel = (pass == LatentPass::forward ? k.forward : pass == LatentPass::backward ? k.backward : k.linf)[dtype];
    torch::stable::parallel_for(0, job.samples * job.sample_size, kGrain,
                                [&](int64_t begin, int64_t end) { kernel(job, begin, end); });
  }

  static void conv_forward(const ConvForward& job, const Tensor&) { by_sample(attack_kernels().conv.forward, job); }
  static void conv_step(const ConvStep& job, const Tensor&) { by_sample(attack_kernels().conv.step, job); }

 private:
  template <class Kernel, class Job> static void by_sample(const Kernel& kernel, const Job& job) {
    const ConvGeometry& g = job.layer.size;
    const int64_t work = g.filters * g.out_height * g.out_width * g.channels * g.kernel_height * g.kernel_width / 16;
    over_samples(g.samples, work, conv_bytes(g),
                 [&](int64_t begin, int64_t end, void* room) { kernel(job, begin, end, room); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  using namespace sat_kernels;
  if (cpu::left_to_triton()) return;
  register_latent_operators<cpu::Cpu>(m);
  register_conv_act_operators<cpu::Cpu>(m);
}
