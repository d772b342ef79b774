// What follows a convolution: a block at a time, which stays in the cache, handed to the kernels of the activations.
#pragma once

#include "../affine_act.h"
#include "latent.h"

namespace sat_kernels::cpu::SK_TARGET {

template <class S> class AffineBlock {
 public:
  using T = Opmath<S>;

  explicit AffineBlock(const AffineAct& job) : job_(job), is_affine_(job.scale != nullptr || job.shift != nullptr) {
    for (int64_t i = 0; i < kSpread; ++i) {
      bias_[i] = shift_[i] = 0;
      scale_[i] = 1;
    }
  }

  // `size` elements from `start` on, or less; returns how many.
  template <Pass pass> int64_t run(int64_t start, int64_t size) {
    Elementwise job{};
    size = set_numbers<T>(job_, start, size < kSpread ? size : kSpread, job);
    spread(start, size);
    S *sum = static_cast<S*>(job_.sum) + start, *out = static_cast<S*>(job_.out) + start;
    if (pass == Pass::forward) add(sum, start, size);
    T* values = values_;
    job.input = z_;
    if (is_affine_) {
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) z_[i] = scale_[i] * load(sum[i]) + shift_[i];
    } else if constexpr (!std::is_same_v<S, T>) {
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) z_[i] = load(sum[i]);
    } else {
      job.input = sum;
    }
    if constexpr (std::is_same_v<S, T>) values = out;
    job.out = values;
    if (pass == Pass::backward) {
      const S* grad = static_cast<const S*>(job_.grad) + start;
      job.grad = grad;
      if constexpr (!std::is_same_v<S, T>) {
        SK_INDEPENDENT
        for (int64_t i = 0; i < size; ++i) values[i] = load(grad[i]);
        job.grad = values;
      }
    }
    activate<T>(job_.f, pass, job, size);
    if (pass == Pass::backward) finish_gradient(values, start, size);
    if constexpr (!std::is_same_v<S, T>) {
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) out[i] = store<S>(values[i]);
    }
    return size;
  }

 private:
  // What belongs to the elements' channels. Where channels are neighbours, the pattern begins anew with each of them.
  void spread(int64_t start, int64_t size) {
    const int64_t channel = start / job_.inner % job_.channels;
    if (job_.inner == 1 && channel == channel_ && size <= spread_) return;
    fill(job_.bias, start, size, bias_);
    fill(job_.scale, start, size, scale_);
    fill(job_.shift, start, size, shift_);
    channel_ = channel;
    spread_ = size;
  }
  void fill(const void* from, int64_t start, int64_t size, T* to) const {
    const T* of = static_cast<const T*>(from);
    if (of != nullptr) spread_channels(job_, start, size, to, [&](int64_t c) { return of[c]; });
  }

  void add(S* sum, int64_t start, int64_t size) const {
    if (job_.residual != nullptr) {
      const S* residual = static_cast<const S*>(job_.residual) + start;
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) sum[i] = store<S>(load(sum[i]) + bias_[i] + load(residual[i]));
    } else if (job_.bias != nullptr) {
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) sum[i] = store<S>(load(sum[i]) + bias_[i]);
    }
  }

  void finish_gradient(T* values, int64_t start, int64_t size) const {
    if (is_affine_) {
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) values[i] *= scale_[i];
    }
    if (job_.grad_sum != nullptr) {
      const S* more = static_cast<const S*>(job_.grad_sum) + start;
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) values[i] += load(more[i]);
    }
  }

  const AffineAct& job_;
  const bool is_affine_;
  int64_t channel_ = -1, spread_ = 0;
  T bias_[kSpread], scale_[kSpread], shift_[kSpread], z_[kSpread], values_[kSpread];
};

// Elements [begin, end).
template <class S, Pass pass> void affine_act(const AffineAct& job, int64_t begin, int64_t end) {
  AffineBlock<S> block(job);
  while (begin < end) begin += block.template run<pass>(begin, end - begin);
}

inline AffineActKernels affine_act_kernels() {
  AffineActKernels k{};
#define SK_ALL(S, s)                                               \
  k.forward[int(DType::s)] = &affine_act<S, Pass::forward>;        \
  k.backward[int(DType::s)] = &affine_act<S, Pass::backward>;
  SK_ALL(float, float32)
  SK_ALL(double, float64)
  SK_ALL(BFloat16, bfloat16)
  SK_ALL(Half, float16)
#undef SK_ALL
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
