// Perturbed activations: z + delta is made for a block at a time, which stays in the cache, and handed to the kernels of
// the activations.
#pragma once

#include "../formulas/latent.h"
#include "kernels.h"
#include "out.h"
#include "steps.h"

namespace sat_kernels::cpu::SK_TARGET {

// An activation's pass over memory in the type that is computed in.
template <class T> void activate(const ActivationOf& f, Pass pass, Elementwise& job, int64_t size) {
  constexpr DType dtype = sizeof(T) == 8 ? DType::float64 : DType::float32;
  kernels().activation[int(f.which)][int(pass)][int(dtype)](job, 0, size, nullptr);
}

// Sets the job's numbers to those of the elements from `start` on, and returns how many of at most `size` have them.
template <class T, class Job> int64_t set_numbers(const Job& from, int64_t start, int64_t size, Elementwise& job) {
  const ActivationOf& f = from.f;
  int64_t channel = 0;
  job.channels = job.inner = 1;
  if (f.channels > 1) {
    const int64_t row = start / from.inner;
    channel = row % f.channels;
    int64_t alike = (row + 1) * from.inner - start;
    if (from.inner == 1) {
      // Neighbours in memory: whole rounds of channels, or what is left of one.
      alike = channel == 0 && size >= f.channels ? size - size % f.channels : f.channels - channel;
      job.channels = alike < f.channels ? alike : f.channels;
    }
    size = alike < size ? alike : size;
  }
  for (int k = 0; k < kMostNumbers; ++k) {
    job.numbers[k] = f.numbers[k];
    const T* parameter = static_cast<const T*>(f.parameters[k]);
    job.parameters[k] = parameter == nullptr ? nullptr : parameter + channel;
  }
  return size;
}

// Of a block: f(z + delta) or grad f'(z + delta).
template <class S> class LatentBlock {
 public:
  using T = Opmath<S>;

  explicit LatentBlock(const LatentJob& job) : job_(job) {}

  // Of `size` elements from `start` on, or of less; returns how many, and sets values().
  int64_t run(Pass pass, int64_t start, int64_t size) {
    Elementwise job{};
    size = set_numbers<T>(job_, start, size < kSpread ? size : kSpread, job);
    const S *z = static_cast<const S*>(job_.z) + start, *grad = static_cast<const S*>(job_.grad) + start;
    const T* delta = static_cast<const T*>(job_.delta) + start;
    SK_INDEPENDENT
    for (int64_t i = 0; i < size; ++i) sums_[i] = load(z[i]) + delta[i];
    job.input = sums_;
    job.out = values_;
    if (pass == Pass::backward) {
      if constexpr (std::is_same_v<S, T>) {
        job.grad = grad;
      } else {
        SK_INDEPENDENT
        for (int64_t i = 0; i < size; ++i) values_[i] = load(grad[i]);
        job.grad = values_;
      }
    }
    activate<T>(job_.f, pass, job, size);
    if (job_.out != nullptr) {
      S* out = static_cast<S*>(job_.out) + start;
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) out[i] = store<S>(values_[i]);
    }
    return size;
  }

  const T* values() const { return values_; }

 private:
  const LatentJob& job_;
  T sums_[kSpread], values_[kSpread];
};

template <class S, Pass pass> void perturbed(const LatentJob& job, int64_t begin, int64_t end) {
  LatentBlock<S> block(job);
  while (begin < end) begin += block.run(pass, begin, end - begin);
}

// delta within the bounds of z + delta, for elements of one sample.
template <class S> class Bounds {
 public:
  using T = Opmath<S>;

  explicit Bounds(const LatentJob& job) : job_(job), exist_(is_bounded(job)) {}

  void apply(int64_t sample, int64_t start, int64_t size) {
    if (!exist_) return;
    const S* z = static_cast<const S*>(job_.z) + start;
    T* delta = static_cast<T*>(job_.delta) + start;
    spread(job_, job_.lo, sample, start, size, lo_);
    spread(job_, job_.hi, sample, start, size, hi_);
    SK_INDEPENDENT
    for (int64_t i = 0; i < size; ++i) delta[i] = within_bounds(delta[i], load(z[i]), lo_[i], hi_[i]);
  }

 private:
  const LatentJob& job_;
  const bool exist_;
  T lo_[kSpread], hi_[kSpread];
};

// Elements [begin, end).
template <class S> void latent_linf(const LatentJob& job, int64_t begin, int64_t end) {
  using T = Opmath<S>;
  T *delta = static_cast<T*>(job.delta), eps[kSpread], alpha[kSpread];
  LatentBlock<S> block(job);
  Bounds<S> bounds(job);
  while (begin < end) {
    const int64_t sample = begin / job.sample_size, next = (sample + 1) * job.sample_size;
    const int64_t size = block.run(Pass::backward, begin, (next < end ? next : end) - begin);
    const T* grad = block.values();
    if (job.eps.of == nullptr && job.alpha.of == nullptr) {
      const T radius = T(job.eps.number), step = T(job.alpha.number);
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) delta[begin + i] = latent_linf_step(delta[begin + i], grad[i], step, radius);
    } else {
      spread(job, job.eps, sample, begin, size, eps);
      spread(job, job.alpha, sample, begin, size, alpha);
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) delta[begin + i] = latent_linf_step(delta[begin + i], grad[i], alpha[i], eps[i]);
    }
    bounds.apply(sample, begin, size);
    begin += size;
  }
}

template <class T> [[gnu::noinline]] void latent_l2_sample(Team team, T* delta, const T* grad, int64_t size, T alpha, T eps) {
  latent_l2_step(team, delta, Gradient<T>{grad}, size, alpha, eps, [](T moved, auto) SK_INLINE_LAMBDA { return moved; });
}

// Samples [begin, end). room: 8 bytes for each element.
template <class S> void latent_l2(const LatentJob& job, int64_t begin, int64_t end, void* room) {
  using T = Opmath<S>;
  const int64_t size = job.sample_size;
  LatentBlock<S> block(job);
  Bounds<S> bounds(job);
  for (int64_t sample = begin; sample < end; ++sample) {
    Team team(room);
    T* grad = team.template hold<T>(size);
    const int64_t first = sample * size;
    for (int64_t i = 0, n; i < size; i += n) {
      n = block.run(Pass::backward, first + i, size - i);
      std::memcpy(grad + i, block.values(), n * sizeof(T));
    }
    latent_l2_sample(team, static_cast<T*>(job.delta) + first, grad, size, size_of<T>(job.alpha, sample),
                     size_of<T>(job.eps, sample));
    for (int64_t i = 0; i < size; i += kSpread) bounds.apply(sample, first + i, size - i < kSpread ? size - i : kSpread);
  }
}

inline LatentKernels latent_kernels() {
  LatentKernels k{};
#define SK_ALL(S, s)                                                    \
  k.forward[int(DType::s)] = &perturbed<S, Pass::forward>;              \
  k.backward[int(DType::s)] = &perturbed<S, Pass::backward>;            \
  k.linf[int(DType::s)] = &latent_linf<S>;                              \
  k.l2[int(DType::s)] = &latent_l2<S>;
  SK_ALL(float, float32)
  SK_ALL(double, float64)
  SK_ALL(BFloat16, bfloat16)
  SK_ALL(Half, float16)
#undef SK_ALL
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
