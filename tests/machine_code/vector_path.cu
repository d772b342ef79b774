// One thread's way through 16-byte accesses only, without tails, so that its instructions can be counted.
#include "cuda/kernels.cuh"
#include "formulas/perturbation.h"

namespace sat_kernels::cuda {

template <class Source, Pass P, class S> __global__ void vector_path(Source source, Tensors<S> tensors) {
  const Slice<kPerAccess<S>> slice(int64_t(blockIdx.x) * (kThreads * kPerAccess<S>), INT64_MAX, threadIdx.x, kThreads, true);
  apply<P, Number<S>>(slice, tensors, [&] { return OneFormula{source.formula(0)}; });
}

#define PATHS(Source, S)                                                \
  template __global__ void vector_path<Source, Pass::forward, S>(Source, Tensors<S>);  \
  template __global__ void vector_path<Source, Pass::backward, S>(Source, Tensors<S>); \
  template __global__ void vector_path<Source, Pass::double_backward, S>(Source, Tensors<S>);
#define FIXED(name, Formula, ...)                        \
  using Formula##16 = Given<Formula, Approximate>;       \
  using Formula##32 = Given<Formula, float>;             \
  PATHS(Formula##16, __nv_bfloat16) PATHS(Formula##32, float)
#define LEARNABLE(name, Formula, ...)                    \
  using Formula##16 = Learned<Formula, Approximate>;     \
  using Formula##32 = Learned<Formula, float>;           \
  PATHS(Formula##16, __nv_bfloat16) PATHS(Formula##32, float)
SK_ACTIVATIONS(FIXED, LEARNABLE)

template <class T, class G> __global__ void vector_step(LinfStep<T> step, T* x_adv, const G* grad, const T* x) {
  constexpr int N = kPerAccess<T>;
  const Slice<N> slice(int64_t(blockIdx.x) * (kThreads * N), INT64_MAX, threadIdx.x, kThreads, true);
  T moved[N], clean[N], g[N];
  slice.load(x_adv, moved);
  slice.load(grad, g);
  slice.load(x, clean);
  for (int j = 0; j < N; ++j) moved[j] = step(moved[j], g[j], clean[j]);
  slice.store(x_adv, moved);
}
template __global__ void vector_step<float, float>(LinfStep<float>, float*, const float*, const float*);
template __global__ void vector_step<float, __nv_bfloat16>(LinfStep<float>, float*, const __nv_bfloat16*, const float*);

}  // namespace sat_kernels::cuda
