// The activations on a GPU.
#include "../storage.h"
#include "launch.cuh"

namespace sat_kernels::cuda {
namespace {

template <template <class> class Formula, class S> __device__ Formula<Opmath<S>> formula_of(const Elementwise& job) {
  double first = job.numbers[0];
  if (job.parameter != nullptr) {
    switch (job.parameter_dtype) {
      case DType::float64: first = *static_cast<const double*>(job.parameter); break;
      case DType::bfloat16: first = load(*static_cast<const BFloat16*>(job.parameter)); break;
      case DType::float16: first = load(*static_cast<const Half*>(job.parameter)); break;
      default: first = *static_cast<const float*>(job.parameter);
    }
  }
  return Formula<Opmath<S>>(first, job.numbers[1]);
}

template <template <class> class Formula, Pass P, class S> __global__ void elementwise(Elementwise job, int64_t size) {
  const auto f = formula_of<Formula, S>(job);
  const S *grad_grad = static_cast<const S*>(job.grad_grad), *grad = static_cast<const S*>(job.grad),
          *input = static_cast<const S*>(job.input);
  S *out = static_cast<S*>(job.out), *grad_out = static_cast<S*>(job.grad_out);
  for (int64_t i = first_index(); i < size; i += index_step()) {
    const auto x = load(input[i]);
    if constexpr (P == Pass::forward) {
      out[i] = store<S>(f.value(x));
    } else if constexpr (P == Pass::backward) {
      out[i] = store<S>(load(grad[i]) * f.derivative(x));
    } else {
      const auto v = load(grad_grad[i]), g = load(grad[i]);
      grad_out[i] = store<S>(v * f.derivative(x));
      out[i] = store<S>(v * g * f.second(x));
    }
  }
}

// The sum of `value` over the block, on thread 0, always in the same order.
__device__ double block_sum(double value) {
  __shared__ double values[kThreads];
  values[threadIdx.x] = value;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) values[threadIdx.x] += values[threadIdx.x + width];
  }
  return values[0];
}

template <template <class> class Formula, class S>
__global__ void parameter_elementwise(Elementwise job, int64_t size, double* sums) {
  const auto f = formula_of<Formula, S>(job);
  const S *grad = static_cast<const S*>(job.grad), *input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  double sum = 0;
  for (int64_t i = first_index(); i < size; i += index_step()) {
    const auto g = load(grad[i]), x = load(input[i]);
    out[i] = store<S>(g * f.derivative(x));
    sum += double(g * f.parameter(x));
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class P> __global__ void add_up(const double* sums, int count, P* result) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += kThreads) sum += sums[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *result = store<P>(Opmath<P>(sum));
}

template <template <class> class Formula, class S>
void launch(Pass pass, const Elementwise& job, int64_t size, cudaStream_t stream) {
  const int blocks = blocks_for(size);
  switch (pass) {
    case Pass::forward: elementwise<Formula, Pass::forward, S><<<blocks, kThreads, 0, stream>>>(job, size); break;
    case Pass::backward: elementwise<Formula, Pass::backward, S><<<blocks, kThreads, 0, stream>>>(job, size); break;
    default: elementwise<Formula, Pass::double_backward, S><<<blocks, kThreads, 0, stream>>>(job, size);
  }
}

}  // namespace

void Cuda::run(Activation activation, Pass pass, const Tensor& input, const Elementwise& job) {
  const int64_t size = input.numel();
  if (size == 0) return;
  const Launch on(input);
  with_type(dtype_of(input), [&](auto* type) {
    using S = std::remove_pointer_t<decltype(type)>;
    switch (activation) {
#define SK_CASE(name, Formula, ...) \
  case Activation::name: launch<Formula, S>(pass, job, size, on.stream); break;
      SK_ACTIVATIONS(SK_CASE, SK_CASE)
#undef SK_CASE
      default: break;
    }
  });
  check_launch();
}

void Cuda::run_with_parameter(Activation activation, const Tensor& input, const Elementwise& job,
                              Tensor& parameter_grad) {
  const int64_t size = input.numel();
  if (size == 0) {
    torch::stable::zero_(parameter_grad);
    return;
  }
  const Launch on(input);
  const int blocks = blocks_for(size);
  Tensor sums = torch::stable::new_empty(input, {int64_t(blocks)}, ScalarType::Double);
  double* partial = static_cast<double*>(sums.mutable_data_ptr());
  with_type(dtype_of(input), [&](auto* type) {
    using S = std::remove_pointer_t<decltype(type)>;
    switch (activation) {
#define SK_FIXED(name, ...)
#define SK_LEARNABLE(name, Formula, ...) \
  case Activation::name: parameter_elementwise<Formula, S><<<blocks, kThreads, 0, on.stream>>>(job, size, partial); break;
      SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
      default: break;
    }
  });
  with_type(dtype_of(parameter_grad), [&](auto* type) {
    using P = std::remove_pointer_t<decltype(type)>;
    add_up<P><<<1, kThreads, 0, on.stream>>>(partial, blocks, static_cast<P*>(parameter_grad.mutable_data_ptr()));
  });
  check_launch();
}

}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  using Device = sat_kernels::cuda::Cuda;
  SK_REGISTER(m, Device)
}
