// The steps of attacks.
#pragma once

#include "../elementwise.h"
#include "../formulas/perturbation.h"
#include "launch.cuh"

namespace sat_kernels::cuda {

// One size of step for all, or, where there are `sample_eps` and `sample_alpha`, one per sample.
template <class T, class G>
__global__ void __launch_bounds__(kThreads)
    step_linf(LinfStep<T> step, T* x_adv, const G* grad, const T* x, const T* sample_eps, const T* sample_alpha,
              int64_t samples, int64_t sample_size, bool packed) {
  constexpr int N = kPerAccess<T>;
  for (int64_t sample = blockIdx.y; sample < samples; sample += gridDim.y) {
    if (sample_eps != nullptr) {
      step.eps = read_one(sample_eps + sample);
      step.alpha = read_one(sample_alpha + sample);
    }
    const int64_t begin = sample * sample_size;
    const Slice<N> slice(begin + int64_t(blockIdx.x) * (kThreads * N), begin + sample_size, threadIdx.x, kThreads, packed);
    T moved[N], clean[N];
    decltype(widened(G())) g[N];
    slice.load(x_adv, moved);
    slice.load(grad, g);
    slice.load(x, clean);
    for (int j = 0; j < N; ++j) moved[j] = step(moved[j], g[j], clean[j]);
    slice.store(x_adv, moved);
  }
}

template <class T, class G> void run_step_linf(const Step& job, int64_t size, cudaStream_t stream) {
  constexpr int N = kPerAccess<T>;
  const int64_t sample_size = job.sample_size == 0 ? size : job.sample_size, samples = size / sample_size;
  T* x_adv = static_cast<T*>(job.x_adv);
  const G* grad = static_cast<const G*>(job.grad);
  const T* x = static_cast<const T*>(job.x);
  const bool packed = (samples == 1 || sample_size % N == 0) && takes_packs<N>(x_adv) && takes_packs<N>(grad) &&
                      takes_packs<N>(x);
  const dim3 grid(unsigned(divided_up(sample_size, kThreads * N)), unsigned(std::min<int64_t>(samples, 65535)));
  const LinfStep<T> step{T(job.alpha), T(job.eps), T(job.lowest), T(job.highest)};
  launch(step_linf<T, G>, grid, kThreads, stream, step, x_adv, grad, x, static_cast<const T*>(job.sample_eps),
         static_cast<const T*>(job.sample_alpha), samples, sample_size, packed);
}

}  // namespace sat_kernels::cuda
