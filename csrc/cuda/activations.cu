// The activations on a GPU.
#include "../storage.h"
#include "launch.cuh"

namespace sat_kernels::cuda {
namespace {

// What element i's numbers make.
template <template <class> class Formula, class T> __device__ Formula<T> formula_of(const Elementwise& job, int64_t i) {
  const int64_t channel = job.channels == 1 ? 0 : i / job.inner % job.channels;
  T numbers[kMostNumbers];
  for (int k = 0; k < kMostNumbers; ++k) {
    numbers[k] =
        k < kParameters<Formula<T>> ? static_cast<const T*>(job.parameters[k])[channel] : T(job.numbers[k]);
  }
  return Formula<T>(numbers[0], numbers[1]);
}

template <template <class> class Formula, Pass P, class S> __global__ void elementwise(Elementwise job, int64_t size) {
  using T = Opmath<S>;
  const auto shared = formula_of<Formula, T>(job, 0);
  const S *grad_grad = static_cast<const S*>(job.grad_grad), *grad = static_cast<const S*>(job.grad),
          *input = static_cast<const S*>(job.input);
  S *out = static_cast<S*>(job.out), *grad_out = static_cast<S*>(job.grad_out);
  for (int64_t i = first_index(); i < size; i += index_step()) {
    const auto f = job.channels == 1 ? shared : formula_of<Formula, T>(job, i);
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
  __syncthreads();  // thread 1 may come from the last step of another sum
  values[threadIdx.x] = value;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) values[threadIdx.x] += values[threadIdx.x + width];
  }
  return values[0];
}

// Block (c, s) goes through a part of channel c's elements; sums[parameter][s][c] is what it finds.
template <template <class> class Formula, class S>
__global__ void parameter_elementwise(Elementwise job, int64_t size, double* sums) {
  using T = Opmath<S>;
  constexpr int parameters = kParameters<Formula<T>>;
  const int64_t channel = blockIdx.x, first = channel * job.inner;
  const auto f = formula_of<Formula, T>(job, first);
  const S *grad = static_cast<const S*>(job.grad), *input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  double found[parameters] = {};
  const int64_t step = int64_t(gridDim.y) * kThreads;
  for (int64_t e = int64_t(blockIdx.y) * kThreads + threadIdx.x; e < size / job.channels; e += step) {
    const int64_t i = first + e / job.inner * job.channels * job.inner + e % job.inner;
    const auto g = load(grad[i]), x = load(input[i]);
    out[i] = store<S>(g * f.derivative(x));
    const auto slopes = f.parameters(x);
    for (int k = 0; k < parameters; ++k) found[k] += double(g * slopes.of[k]);
  }
  for (int k = 0; k < parameters; ++k) {
    const double sum = block_sum(found[k]);
    if (threadIdx.x == 0) sums[(int64_t(k) * gridDim.y + blockIdx.y) * job.channels + channel] = sum;
  }
}

// Block (c, k): parameter k's gradient for channel c.
template <class T> __global__ void add_up(const double* sums, int splits, Elementwise job) {
  const int64_t channel = blockIdx.x, parameter = blockIdx.y;
  double sum = 0;
  for (int s = threadIdx.x; s < splits; s += kThreads) sum += sums[(parameter * splits + s) * job.channels + channel];
  sum = block_sum(sum);
  if (threadIdx.x == 0) static_cast<T*>(job.parameter_grads[parameter])[channel] = T(sum);
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
  if (pass == Pass::parameter_backward) return run_with_sums(activation, input, job);
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

void Cuda::run_with_sums(Activation activation, const Tensor& input, const Elementwise& job) {
  int parameters = 0;
  while (parameters < kMostNumbers && job.parameters[parameters] != nullptr) ++parameters;
  const Launch on(input);
  const int64_t size = input.numel();
  if (size == 0) {
    const size_t bytes = job.channels * (dtype_of(input) == DType::float64 ? sizeof(double) : sizeof(float));
    for (int k = 0; k < parameters; ++k) cudaMemsetAsync(job.parameter_grads[k], 0, bytes, on.stream);
    return check_launch();
  }
  // Enough blocks to fill the device, at most a thousand for one channel.
  const int64_t splits = std::clamp<int64_t>(blocks_for(size) / job.channels, 1, 1024);
  Tensor sums = torch::stable::new_empty(input, {parameters * splits * job.channels}, ScalarType::Double);
  double* partial = static_cast<double*>(sums.mutable_data_ptr());
  const dim3 grid(unsigned(job.channels), unsigned(splits)), results(unsigned(job.channels), unsigned(parameters));
  with_type(dtype_of(input), [&](auto* type) {
    using S = std::remove_pointer_t<decltype(type)>;
    switch (activation) {
#define SK_FIXED(name, ...)
#define SK_LEARNABLE(name, Formula, ...) \
  case Activation::name: parameter_elementwise<Formula, S><<<grid, kThreads, 0, on.stream>>>(job, size, partial); break;
      SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
      default: break;
    }
    add_up<Opmath<S>><<<results, kThreads, 0, on.stream>>>(partial, int(splits), job);
  });
  check_launch();
}

}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  sat_kernels::register_operators<sat_kernels::cuda::Cuda>(m);
}
