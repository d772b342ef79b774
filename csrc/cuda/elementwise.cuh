// The passes of activations over memory whose elements all have the same numbers.
#pragma once

#include "../elementwise.h"
#include "launch.cuh"

namespace sat_kernels::cuda {

// The tensors of a pass.
template <class S> struct Tensors {
  const S *grad_grad, *grad, *input;
  S *out, *grad_out;

  explicit Tensors(const Elementwise& job)
      : grad_grad(static_cast<const S*>(job.grad_grad)),
        grad(static_cast<const S*>(job.grad)),
        input(static_cast<const S*>(job.input)),
        out(static_cast<S*>(job.out)),
        grad_out(static_cast<S*>(job.grad_out)) {}

  bool take_packs() const {
    constexpr int N = kPerAccess<S>;
    return takes_packs<N>(grad_grad) && takes_packs<N>(grad) && takes_packs<N>(input) && takes_packs<N>(out) &&
           takes_packs<N>(grad_out);
  }
};

// A formula whose numbers the host knows, or one that is made of those that are in the device's memory.
template <template <class> class Formula, class T> struct Given {
  Formula<T> made;
  explicit Given(const Elementwise& job) : made(T(job.numbers[0]), T(job.numbers[1])) {}
  __device__ __forceinline__ Formula<T> formula(int64_t) const { return made; }
};
template <template <class> class Formula, class T> struct Learned {
  using Stored = std::conditional_t<sizeof(T) == 8, double, float>;
  const Stored* numbers[kMostNumbers];
  explicit Learned(const Elementwise& job) {
    for (int k = 0; k < kMostNumbers; ++k) numbers[k] = static_cast<const Stored*>(job.parameters[k]);
  }
  __device__ __forceinline__ Formula<T> formula(int64_t channel) const {
    constexpr bool two = kParameters<Formula<T>> > 1;
    return Formula<T>(T(read_one(numbers[0] + channel)), T(two ? read_one(numbers[1] + channel) : Stored(0)));
  }
};

// One formula for every element of a slice.
template <class F> struct OneFormula {
  F made;
  __device__ __forceinline__ const F& operator[](int) const { return made; }
};

// The pass at the elements of a slice. formulas()[j] is element j's formula, asked for once the loads are on their way.
template <Pass P, class T, int N, class S, class Formulas>
__device__ __forceinline__ void apply(const Slice<N>& slice, const Tensors<S>& tensors, const Formulas& formulas) {
  T x[N], g[N], v[N], y[N];
  slice.load(tensors.input, x);
  if constexpr (P != Pass::forward) slice.load(tensors.grad, g);
  if constexpr (P == Pass::double_backward) slice.load(tensors.grad_grad, v);
  const auto& f = formulas();
  if constexpr (P == Pass::forward) {
    for (int j = 0; j < N; ++j) y[j] = f[j].value(x[j]);
  } else if constexpr (P == Pass::backward) {
    for (int j = 0; j < N; ++j) y[j] = g[j] * f[j].derivative(x[j]);
  } else {
    T w[N];
    for (int j = 0; j < N; ++j) {
      w[j] = v[j] * f[j].derivative(x[j]);
      y[j] = v[j] * g[j] * f[j].second(x[j]);
    }
    slice.store(tensors.grad_out, w);
  }
  slice.store(tensors.out, y);
}

// At least ten blocks per multiprocessor, which is at most 48 registers: left to itself the compiler takes 40 and spills.
template <class Source, Pass P, class T, class S>
__global__ void __launch_bounds__(kThreads, 10) flat(Source source, Tensors<S> tensors, int64_t size, bool packed) {
  constexpr int N = kPerAccess<S>;
  const Slice<N> slice(int64_t(blockIdx.x) * (kThreads * N), size, threadIdx.x, kThreads, packed);
  apply<P, T>(slice, tensors, [&] { return OneFormula{source.formula(0)}; });
}

template <class Source, class S>
void run_flat(Pass pass, const Elementwise& job, int64_t size, cudaStream_t stream) {
  using T = Number<S>;
  const Tensors<S> tensors(job);
  const dim3 grid(unsigned(divided_up(size, kThreads * kPerAccess<S>)));
  const auto run = [&](auto kernel) {
    launch(kernel, grid, kThreads, stream, Source(job), tensors, size, tensors.take_packs());
  };
  switch (pass) {
    case Pass::forward: return run(flat<Source, Pass::forward, T, S>);
    case Pass::backward: return run(flat<Source, Pass::backward, T, S>);
    default: return run(flat<Source, Pass::double_backward, T, S>);
  }
}

}  // namespace sat_kernels::cuda
