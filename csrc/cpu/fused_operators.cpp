// Perturbed activations, a network's first layer, and what follows a convolution, on the CPU.
#include "../affine_act_operators.h"
#include "../conv_act_operators.h"

#include "attacks.h"
#include "conv_room.h"
#include "dispatch.h"
#include "kernels.h"

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
    if (pass == LatentPass::linf && is_plain(job) && dtype == int(DType::float32)) return plain_step(job);
    const auto kernel = (pass == LatentPass::forward ? k.forward : pass == LatentPass::backward ? k.backward : k.linf)[dtype];
    torch::stable::parallel_for(0, job.samples * job.sample_size, kGrain,
                                [&](int64_t begin, int64_t end) { kernel(job, begin, end); });
  }

  static void conv_forward(const ConvForward& job, const Tensor&) { by_sample(attack_kernels().conv.forward, job); }
  static void conv_step(const ConvStep& job, const Tensor&) { by_sample(attack_kernels().conv.step, job); }

  static void affine_act(Pass pass, const AffineAct& job, const Tensor& sum) {
    const AffineActKernels& k = attack_kernels().affine_act;
    const auto kernel = (pass == Pass::forward ? k.forward : k.backward)[int(dtype_of(sum))];
    torch::stable::parallel_for(0, job.size, kGrain, [&](int64_t begin, int64_t end) { kernel(job, begin, end); });
  }

 private:
  static bool is_plain(const LatentJob& job) { return !job.out && !job.eps.of && !job.alpha.of && !is_bounded(job); }

  static void plain_step(const LatentJob& job) {
    Elementwise step{};
    step.grad = job.grad;
    step.input = job.z;
    step.out = job.delta;
    std::copy_n(job.f.numbers, kMostNumbers, step.numbers);
    std::copy_n(job.f.parameters, kMostNumbers, step.parameters);
    step.channels = job.f.channels;
    step.inner = job.inner;
    const auto kernel = kernels().step[int(job.f.which)];
    torch::stable::parallel_for(0, job.samples * job.sample_size, kGrain, [&](int64_t begin, int64_t end) {
      kernel(step, float(job.eps.number), float(job.alpha.number), begin, end);
    });
  }

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
  register_affine_act_operators<cpu::Cpu>(m);
}
