// MI-FGSM's step: a block of threads for each sample.
#include "../formulas/momentum.h"
#include "options.cuh"
#include "steps.h"
#include "team.cuh"

namespace sat_kernels::cuda {

// In double, 32 registers are too few on sm_100.
template <class T, class G>
__global__ void __launch_bounds__(kMostThreads, sizeof(T) == 8 ? 1 : 2) momentum_step(const OptionsJob all) {
  const AttackStep& job = all.step;
  const int64_t sample = blockIdx.x, begin = sample * job.sample_size, size = job.sample_size;
  if (Options<T>::skips(job, sample)) return;
  const Options<T> options(all, sample);
  T *x_adv = static_cast<T*>(job.x_adv) + begin, *momentum = static_cast<T*>(job.momentum) + begin;
  const G* grad = static_cast<const G*>(job.grad) + begin;
  const T *x = static_cast<const T*>(job.x) + begin, decay = T(job.decay);
  const Team<0> team(nullptr);
  const MeanGradient<T> mean = mean_gradient<T>(team, grad, size);
  team.each(size, [&](int64_t i) {
    LinfStep<T> step = options.at(i);
    if (job.mask != nullptr && !read_one(job.mask + begin + i)) step.alpha = T(0);
    const T m = decay * team.read(momentum, i) + mean.share(T(team.read(grad, i)));
    const T moved = step(team.read(x_adv, i), m, team.read(x, i));
    team.write(momentum, i, m);
    team.write(x_adv, i, moved);
    if (job.out.to != nullptr) options.write_out(options.normalised(moved, i), i);
  });
}

template <class T, class G> void run_momentum(const AttackStep& job, cudaStream_t stream) {
  const dim3 grid(unsigned(job.samples));
  launch(momentum_step<T, G>, grid, team_for<T>(job.sample_size).threads, stream, OptionsJob(job, false));
}

void momentum_linf(const AttackStep& job, DType x, DType grad, cudaStream_t stream) {
  if (x == DType::float64) return run_momentum<double, double>(job, stream);
  switch (grad) {
    case DType::bfloat16: return run_momentum<float, __nv_bfloat16>(job, stream);
    case DType::float16: return run_momentum<float, __half>(job, stream);
    default: return run_momentum<float, float>(job, stream);
  }
}

}  // namespace sat_kernels::cuda
