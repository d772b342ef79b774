// The loops, compiled once per instruction set: SK_TARGET names the namespace they go to.
#pragma once

#include "../formulas/activations.h"
#include "../formulas/perturbation.h"
#include "../storage.h"
#include "kernels.h"

#if defined(__clang__)
#define SK_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SK_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace sat_kernels::cpu::SK_TARGET {

template <template <class> class Formula, class S>
double forward(const Elementwise& job, int64_t begin, int64_t end) {
  const Formula<Opmath<S>> f(job.numbers[0], job.numbers[1]);
  const S* input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  SK_INDEPENDENT
  for (int64_t i = begin; i < end; ++i) out[i] = store<S>(f.value(load(input[i])));
  return 0;
}

template <template <class> class Formula, class S>
double backward(const Elementwise& job, int64_t begin, int64_t end) {
  const Formula<Opmath<S>> f(job.numbers[0], job.numbers[1]);
  const S *grad = static_cast<const S*>(job.grad), *input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  SK_INDEPENDENT
  for (int64_t i = begin; i < end; ++i) out[i] = store<S>(load(grad[i]) * f.derivative(load(input[i])));
  return 0;
}

template <template <class> class Formula, class S>
double double_backward(const Elementwise& job, int64_t begin, int64_t end) {
  const Formula<Opmath<S>> f(job.numbers[0], job.numbers[1]);
  const S *grad_grad = static_cast<const S*>(job.grad_grad), *grad = static_cast<const S*>(job.grad),
          *input = static_cast<const S*>(job.input);
  S *grad_out = static_cast<S*>(job.grad_out), *out = static_cast<S*>(job.out);
  SK_INDEPENDENT
  for (int64_t i = begin; i < end; ++i) {
    const auto v = load(grad_grad[i]), g = load(grad[i]), x = load(input[i]);
    grad_out[i] = store<S>(v * f.derivative(x));
    out[i] = store<S>(v * g * f.second(x));
  }
  return 0;
}

template <template <class> class Formula, class S>
double parameter_backward(const Elementwise& job, int64_t begin, int64_t end) {
  using T = Opmath<S>;
  const Formula<T> f(job.numbers[0], job.numbers[1]);
  const S *grad = static_cast<const S*>(job.grad), *input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  // Terms go through a buffer: adding them up in the loop would keep it from being vectorised.
  constexpr int64_t kBlock = 512;
  T terms[kBlock];
  double sums[8] = {};
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t size = end - start < kBlock ? end - start : kBlock;
    SK_INDEPENDENT
    for (int64_t i = 0; i < size; ++i) {
      const T g = load(grad[start + i]), x = load(input[start + i]);
      out[start + i] = store<S>(g * f.derivative(x));
      terms[i] = g * f.parameter(x);
    }
    // Eight sums side by side, since one would wait for itself at every term.
    int64_t i = 0;
    for (; i + 8 <= size; i += 8) {
      for (int j = 0; j < 8; ++j) sums[j] += terms[i + j];
    }
    for (; i < size; ++i) sums[0] += terms[i];
  }
  for (int j = 1; j < 8; ++j) sums[0] += sums[j];
  return sums[0];
}

template <class T, class G> void step_linf(const Step& job, int64_t begin, int64_t end) {
  T* x_adv = static_cast<T*>(job.x_adv);
  const G* grad = static_cast<const G*>(job.grad);
  const T* x = static_cast<const T*>(job.x);
  while (begin < end) {
    LinfStep<T> step{T(job.alpha), T(job.eps), T(job.lowest), T(job.highest)};
    int64_t stop = end;
    if (job.sample_size != 0) {
      const int64_t sample = begin / job.sample_size, next = (sample + 1) * job.sample_size;
      step.alpha = static_cast<const T*>(job.sample_alpha)[sample];
      step.eps = static_cast<const T*>(job.sample_eps)[sample];
      stop = next < end ? next : end;
    }
    SK_INDEPENDENT
    for (int64_t i = begin; i < stop; ++i) x_adv[i] = step(x_adv[i], load(grad[i]), x[i]);
    begin = stop;
  }
}

inline Kernels make_kernels(const char* name) {
  Kernels k{};
  k.instruction_set = name;
#define SK_ALL_DTYPES(table, loop, ...)                                  \
  table[int(DType::float32)] = &loop<__VA_ARGS__ float>;                 \
  table[int(DType::float64)] = &loop<__VA_ARGS__ double>;                \
  table[int(DType::bfloat16)] = &loop<__VA_ARGS__ BFloat16>;             \
  table[int(DType::float16)] = &loop<__VA_ARGS__ Half>;
#define SK_COMMA ,
#define SK_FIXED(name, Formula, ...)                                                                  \
  {                                                                                                   \
    auto& passes = k.activation[int(Activation::name)];                                               \
    SK_ALL_DTYPES(passes[int(Pass::forward)], forward, Formula SK_COMMA)                              \
    SK_ALL_DTYPES(passes[int(Pass::backward)], backward, Formula SK_COMMA)                            \
    SK_ALL_DTYPES(passes[int(Pass::double_backward)], double_backward, Formula SK_COMMA)              \
  }
#define SK_LEARNABLE(name, Formula, ...)                                                              \
  SK_FIXED(name, Formula)                                                                             \
  SK_ALL_DTYPES(k.activation[int(Activation::name)][int(Pass::parameter_backward)], parameter_backward, \
                Formula SK_COMMA)
  SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
  SK_ALL_DTYPES(k.step_linf[0], step_linf, float SK_COMMA)
  SK_ALL_DTYPES(k.step_linf[1], step_linf, double SK_COMMA)
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
