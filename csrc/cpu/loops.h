// The loops, compiled once per instruction set: SK_TARGET names the namespace they go to.
#pragma once

#include "../formulas/activations.h"
#include "../formulas/latent.h"
#include "../storage.h"
#include "channels.h"
#include "kernels.h"
#include "vectorise.h"

namespace sat_kernels::cpu::SK_TARGET {

// How many elements' parameters, or terms of a parameter's gradient, are kept at a time.
constexpr int64_t kBlock = 512;

// The parameter of each of the elements [begin, begin + size).
template <class T> struct Spread {
  T values[kBlock];
  Spread(const Elementwise& job, int number, int64_t begin, int64_t size) {
    const T* parameter = static_cast<const T*>(job.parameters[number]);
    visit_channels(job, begin, size, [&](int64_t offset, int64_t channel, int64_t n) {
      const int64_t step = job.inner == 1 ? 1 : 0;
      for (int64_t i = 0; i < n; ++i) values[offset + i] = parameter[channel + step * i];
    });
  }
};

// Calls element(f, i) for each i in [begin, end), f being made from the element's numbers.
template <template <class> class Formula, class T, class Element>
SK_FN void for_each(const Elementwise& job, int64_t begin, int64_t end, Element element) {
  constexpr int parameters = kParameters<Formula<T>>;
  if (job.channels == 1) {
    T numbers[kMostNumbers];
    for (int k = 0; k < kMostNumbers; ++k) {
      numbers[k] = k < parameters ? *static_cast<const T*>(job.parameters[k]) : T(job.numbers[k]);
    }
    const auto f = hidden(Formula<T>(numbers[0], numbers[1]));
    SK_INDEPENDENT
    for (int64_t i = begin; i < end; ++i) element(f, i);
  } else if constexpr (parameters > 0) {
    for (int64_t start = begin; start < end; start += kBlock) {
      const int64_t size = end - start < kBlock ? end - start : kBlock;
      const Spread<T> first(job, 0, start, size), second(job, parameters - 1, start, size);
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) element(Formula<T>(first.values[i], second.values[i]), start + i);
    }
  }
}

template <template <class> class Formula, class S>
void forward(const Elementwise& job, int64_t begin, int64_t end, double*) {
  const S* input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  for_each<Formula, Opmath<S>>(job, begin, end, [=](const auto& f, int64_t i) SK_INLINE_LAMBDA {
    out[i] = store<S>(f.value(load(input[i])));
  });
}

template <template <class> class Formula, class S>
void backward(const Elementwise& job, int64_t begin, int64_t end, double*) {
  const S *grad = static_cast<const S*>(job.grad), *input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  for_each<Formula, Opmath<S>>(job, begin, end, [=](const auto& f, int64_t i) SK_INLINE_LAMBDA {
    out[i] = store<S>(load(grad[i]) * f.derivative(load(input[i])));
  });
}

template <template <class> class Formula, class S>
void double_backward(const Elementwise& job, int64_t begin, int64_t end, double*) {
  const S *grad_grad = static_cast<const S*>(job.grad_grad), *grad = static_cast<const S*>(job.grad),
          *input = static_cast<const S*>(job.input);
  S *grad_out = static_cast<S*>(job.grad_out), *out = static_cast<S*>(job.out);
  for_each<Formula, Opmath<S>>(job, begin, end, [=](const auto& f, int64_t i) SK_INLINE_LAMBDA {
    const auto v = load(grad_grad[i]), g = load(grad[i]), x = load(input[i]);
    grad_out[i] = store<S>(v * f.derivative(x));
    out[i] = store<S>(v * g * f.second(x));
  });
}

// The step of latent.h where there are only tensors and numbers: in one loop, memory is read while f' is computed.
template <template <class> class Formula>
void step(const Elementwise& job, float eps, float alpha, int64_t begin, int64_t end) {
  const float *grad = static_cast<const float*>(job.grad), *input = static_cast<const float*>(job.input);
  float* delta = static_cast<float*>(job.out);
  for_each<Formula, float>(job, begin, end, [=](const auto& f, int64_t i) SK_INLINE_LAMBDA {
    const float d = delta[i];
    delta[i] = latent_linf_step(d, grad[i] * f.derivative(input[i] + d), alpha, eps);
  });
}

template <class T> double total(const T* terms, int64_t size) {
  // Eight sums side by side, since one would wait for itself at every term.
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += terms[i + j];
  }
  for (; i < size; ++i) sums[0] += terms[i];
  for (int j = 1; j < 8; ++j) sums[0] += sums[j];
  return sums[0];
}

template <class T>
void add_terms(const Elementwise& job, int64_t begin, int64_t size, const T* terms, double* sums) {
  if (job.channels == 1) {
    sums[0] += total(terms, size);
    return;
  }
  visit_channels(job, begin, size, [&](int64_t offset, int64_t channel, int64_t n) {
    if (job.inner == 1) {
      for (int64_t i = 0; i < n; ++i) sums[channel + i] += terms[offset + i];
    } else {
      sums[channel] += total(terms + offset, n);
    }
  });
}

template <template <class> class Formula, class S>
void parameter_backward(const Elementwise& job, int64_t begin, int64_t end, double* sums) {
  using T = Opmath<S>;
  constexpr int parameters = kParameters<Formula<T>>;
  const S *grad = static_cast<const S*>(job.grad), *input = static_cast<const S*>(job.input);
  S* out = static_cast<S*>(job.out);
  // Terms go through a buffer: adding them up in the loop would keep it from being vectorised.
  T terms[parameters][kBlock];
  for (int64_t start = begin; start < end; start += kBlock) {
    const int64_t size = end - start < kBlock ? end - start : kBlock;
    for_each<Formula, T>(job, start, start + size, [=, &terms](const auto& f, int64_t i) SK_INLINE_LAMBDA {
      const T g = load(grad[i]), x = load(input[i]);
      out[i] = store<S>(g * f.derivative(x));
      const auto slopes = f.parameters(x);
      for (int k = 0; k < parameters; ++k) terms[k][i - start] = g * slopes.of[k];
    });
    for (int k = 0; k < parameters; ++k) add_terms(job, start, size, terms[k], sums + k * job.channels);
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
    k.step[int(Activation::name)] = &step<Formula>;                                                   \
  }
#define SK_LEARNABLE(name, Formula, ...)                                                              \
  SK_FIXED(name, Formula)                                                                             \
  SK_ALL_DTYPES(k.activation[int(Activation::name)][int(Pass::parameter_backward)], parameter_backward, \
                Formula SK_COMMA)
  SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
