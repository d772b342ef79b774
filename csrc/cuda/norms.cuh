// The steps of the L2 and L1 balls: a block of threads for each sample.
#pragma once

#include "../formulas/ball.h"
#include "options.cuh"
#include "steps.h"
#include "team.cuh"

namespace sat_kernels::cuda {

// 0 where the mask is false.
template <class T, class G> struct Gradient {
  const G* grad;     // or null
  const bool* mask;  // or null
  __device__ __forceinline__ bool exists() const { return grad != nullptr; }
  __device__ __forceinline__ T operator()(int64_t i) const {
    if (grad == nullptr || (mask != nullptr && !read_one(mask + i))) return T(0);
    return T(widened(read_one(grad + i)));
  }
};

// Calls step(x_adv, gradient, x, alpha, ball) for the block's sample, and writes the network's input.
template <class T, class G, class Step>
__device__ __forceinline__ void with_sample(const OptionsJob& all, const Step& step) {
  const AttackStep& job = all.step;
  const int64_t sample = blockIdx.x, size = job.sample_size, begin = sample * size;
  if (Options<T>::skips(job, sample)) return;
  const Options<T> options(all, sample);
  const LinfStep<T> sizes = options.at(0);
  const Ball<T> ball{sizes.eps, {sizes.lowest, sizes.highest}};
  T* x_adv = static_cast<T*>(job.x_adv) + begin;
  const G* grad = static_cast<const G*>(job.grad);
  const Gradient<T, G> gradient{grad == nullptr ? nullptr : grad + begin, job.mask == nullptr ? nullptr : job.mask + begin};
  step(x_adv, gradient, static_cast<const T*>(job.x) + begin, sizes.alpha, ball);
  if (job.out.to == nullptr) return;
  for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
    options.write_out(options.normalised(read_one(x_adv + i), i), i);
  }
}

// Calls run(T*, G*) for the number types of x_adv and of the gradient.
template <class F> void with_norm_types(DType x, DType grad, const F& run) {
  if (x == DType::float64) return run((double*)nullptr, (double*)nullptr);
  switch (grad) {
    case DType::bfloat16: return run((float*)nullptr, (__nv_bfloat16*)nullptr);
    case DType::float16: return run((float*)nullptr, (__half*)nullptr);
    default: return run((float*)nullptr, (float*)nullptr);
  }
}

}  // namespace sat_kernels::cuda
