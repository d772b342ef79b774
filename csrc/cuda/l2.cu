#include "../formulas/l2.h"

#include "norms.cuh"

namespace sat_kernels::cuda {
namespace {

template <class T, class G, bool Apgd>
__global__ void __launch_bounds__(kMostThreads, 1) step_l2(const OptionsJob all) {
  const AttackStep& job = all.step;
  const int64_t size = job.sample_size;
  with_sample<T, G>(all, [&](T* x_adv, const auto& gradient, const T* x, T alpha, const auto& ball) {
    const Team<0> team(nullptr);
    if constexpr (Apgd) {
      T* x_prev = static_cast<T*>(job.x_prev) + blockIdx.x * size;
      apgd_l2_step(team, x_adv, x_prev, gradient, x, size, alpha, ball, job.first);
    } else {
      l2_step(team, x_adv, gradient, x, size, alpha, ball);
    }
  });
}

template <bool Apgd> void run_l2(const AttackStep& job, DType x, DType grad, cudaStream_t stream) {
  with_norm_types(x, grad, [&]<class T, class G>(T*, G*) {
    const int threads = team_for<T>(job.sample_size).threads;
    launch(step_l2<T, G, Apgd>, dim3(unsigned(job.samples)), threads, stream, OptionsJob(job, false));
  });
}

}  // namespace

void l2(const AttackStep& job, DType x, DType grad, cudaStream_t stream) { run_l2<false>(job, x, grad, stream); }
void apgd_l2(const AttackStep& job, DType x, DType grad, cudaStream_t stream) { run_l2<true>(job, x, grad, stream); }

}  // namespace sat_kernels::cuda
