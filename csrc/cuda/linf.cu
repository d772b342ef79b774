#include "linf.cuh"

namespace sat_kernels::cuda {

void linf(const AttackStep& job, DType x, DType grad, cudaStream_t stream) {
  with_types(x, grad, [&]<class T, class G>(T*, G*) { run_linf<T, G, false>(job, stream); });
}

void apgd_linf(const AttackStep& job, DType x, DType grad, cudaStream_t stream) {
  with_types(x, grad, [&]<class T, class G>(T*, G*) { run_linf<T, G, true>(job, stream); });
}

}  // namespace sat_kernels::cuda
