// The steps of the Linf ball that work element for element.
#pragma once

#include "options.cuh"
#include "steps.h"

namespace sat_kernels::cuda {

template <class T, class G>
__global__ void __launch_bounds__(kThreads)
    linf_plain(LinfStep<T> step, T* x_adv, const G* grad, const T* x, int64_t size, bool packed) {
  constexpr int N = kPerAccess<T>;
  const Slice<N> slice(int64_t(blockIdx.x) * (kThreads * N), size, threadIdx.x, kThreads, packed);
  T moved[N], clean[N];
  decltype(widened(G())) g[N];
  slice.load(x_adv, moved);
  slice.load(grad, g);
  slice.load(x, clean);
  for (int j = 0; j < N; ++j) moved[j] = step(moved[j], g[j], clean[j]);
  slice.store(x_adv, moved);
}

template <class T, class G, bool Apgd>
__global__ void __launch_bounds__(kThreads, 4) linf_with_options(const OptionsJob all, bool packed) {
  constexpr int N = kPerAccess<T>;
  const AttackStep& job = all.step;
  T *x_adv = static_cast<T*>(job.x_adv), *x_prev = static_cast<T*>(job.x_prev);
  for (int64_t sample = blockIdx.y; sample < job.samples; sample += gridDim.y) {
    if (Options<T>::skips(job, sample)) continue;
    const Options<T> options(all, sample);
    const int64_t begin = sample * job.sample_size;
    const Slice<N> slice(begin + int64_t(blockIdx.x) * (kThreads * N), begin + job.sample_size, threadIdx.x, kThreads,
                         packed);
    T moved[N], clean[N];
    decltype(widened(G())) g[N] = {};
    int allowed[N];
    slice.load(x_adv, moved);
    if (job.grad != nullptr) slice.load(static_cast<const G*>(job.grad), g);
    slice.load(static_cast<const T*>(job.x), clean);
    if (job.mask != nullptr) slice.load(job.mask, allowed);
    T found[N], before[N];
    if constexpr (Apgd) {
      slice.load(x_prev, before);
      for (int j = 0; j < N; ++j) found[j] = moved[j];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      LinfStep<T> step = options.at(slice.index(j) - begin);
      if (job.mask != nullptr && !allowed[j]) step.alpha = T(0);
      if constexpr (Apgd) {
        moved[j] = step.with_momentum(found[j], g[j], clean[j], before[j], job.first);
      } else {
        moved[j] = step(moved[j], g[j], clean[j]);
      }
    }
    slice.store(x_adv, moved);
    if constexpr (Apgd) slice.store(x_prev, found);
    if (job.out.to == nullptr) continue;
    float input[N];
#pragma unroll
    for (int j = 0; j < N; ++j) input[j] = options.normalised(moved[j], slice.index(j) - begin);
    if (all.packs_out) {
      options.with_out([&](auto* to) { slice.store(to, input); });
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        if (slice.has(j)) options.write_out(input[j], slice.index(j) - begin);
      }
    }
  }
}

template <int N> bool out_takes_packs(const AttackStep& job) {
  switch (job.out.dtype) {
    case DType::float32: return takes_packs<N>(static_cast<const float*>(job.out.to));
    default: return takes_packs<N>(static_cast<const __half*>(job.out.to));
  }
}

template <class T, class G, bool Apgd> void run_linf(const AttackStep& job, cudaStream_t stream) {
  constexpr int N = kPerAccess<T>;
  T *x_adv = static_cast<T*>(job.x_adv), *x_prev = static_cast<T*>(job.x_prev);
  const G* grad = static_cast<const G*>(job.grad);
  const T* x = static_cast<const T*>(job.x);
  bool packed = takes_packs<N>(x_adv) && takes_packs<N>(grad) && takes_packs<N>(x) && takes_packs<N>(x_prev);
  const int64_t size = job.samples * job.sample_size;
  if (!Apgd && is_plain(job)) {
    const LinfStep<T> step{T(job.alpha.number), T(job.eps.number), T(job.lowest), T(job.highest)};
    const dim3 grid(unsigned(divided_up(size, kThreads * N)));
    return launch(linf_plain<T, G>, grid, kThreads, stream, step, x_adv, grad, x, size, packed);
  }
  packed = packed && (job.samples == 1 || job.sample_size % N == 0) && takes_packs<N>(job.mask);
  const OptionsJob all(job, out_in_order(job) && out_takes_packs<N>(job));
  const dim3 grid(unsigned(divided_up(job.sample_size, kThreads * N)), unsigned(std::min<int64_t>(job.samples, 65535)));
  launch(linf_with_options<T, G, Apgd>, grid, kThreads, stream, all, packed);
}

// Calls f with null pointers to the number types of images and gradients.
template <class F> void with_types(DType x, DType grad, const F& f) {
  const auto with_grad = [&](auto* image) {
    switch (grad) {
      case DType::float64: return f(image, static_cast<double*>(nullptr));
      case DType::bfloat16: return f(image, static_cast<__nv_bfloat16*>(nullptr));
      case DType::float16: return f(image, static_cast<__half*>(nullptr));
      default: return f(image, static_cast<float*>(nullptr));
    }
  };
  x == DType::float64 ? with_grad(static_cast<double*>(nullptr)) : with_grad(static_cast<float*>(nullptr));
}

}  // namespace sat_kernels::cuda
