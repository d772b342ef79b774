// The Linf step on a GPU.
#include "../formulas/perturbation.h"
#include "../storage.h"
#include "launch.cuh"

namespace sat_kernels::cuda {
namespace {

template <class T, class G> __global__ void step_linf_kernel(Step job, int64_t size) {
  LinfStep<T> step{T(job.alpha), T(job.eps), T(job.lowest), T(job.highest)};
  T* x_adv = static_cast<T*>(job.x_adv);
  const G* grad = static_cast<const G*>(job.grad);
  const T* x = static_cast<const T*>(job.x);
  for (int64_t i = first_index(); i < size; i += index_step()) {
    if (job.sample_size != 0) {
      const int64_t sample = i / job.sample_size;
      step.alpha = static_cast<const T*>(job.sample_alpha)[sample];
      step.eps = static_cast<const T*>(job.sample_eps)[sample];
    }
    x_adv[i] = step(x_adv[i], load(grad[i]), x[i]);
  }
}

template <class T> void launch(DType grad, const Step& step, int64_t size, cudaStream_t stream) {
  with_type(grad, [&](auto* type) {
    using G = std::remove_pointer_t<decltype(type)>;
    step_linf_kernel<T, G><<<blocks_for(size), kThreads, 0, stream>>>(step, size);
  });
}

}  // namespace

void Cuda::step_linf(const Tensor& x_adv, DType grad, const Step& step) {
  const int64_t size = x_adv.numel();
  if (size == 0) return;
  const Launch on(x_adv);
  if (dtype_of(x_adv) == DType::float64) {
    launch<double>(grad, step, size, on.stream);
  } else {
    launch<float>(grad, step, size, on.stream);
  }
  check_launch();
}

}  // namespace sat_kernels::cuda
