// The steps of the Linf ball.
#pragma once

#include "../formulas/momentum.h"
#include "../formulas/perturbation.h"
#include "attacks.h"
#include "out.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

// Calls element(step, i) for each i in [begin, end) that belongs to an active sample: step(sizes of i) goes from x_adv[i].
// Then writes the network's input, as long as the block is in the cache.
template <class T, class Element> void linf_blocks(const AttackStep& job, int64_t begin, int64_t end, const Element& element) {
  const T* x_adv = static_cast<const T*>(job.x_adv);
  const T lowest = T(job.lowest), highest = T(job.highest);
  T eps[kSpread], alpha[kSpread];
  Out out(job);
  while (begin < end) {
    const int64_t sample = begin / job.sample_size, next = (sample + 1) * job.sample_size;
    const int64_t stop = next < end ? next : end;
    if (job.active != nullptr && !job.active[sample]) {
      begin = stop;
      continue;
    }
    // Blocks of whole places where channels are neighbours: what depends on the channel is then the same in each.
    const int64_t period = job.inner == 1 && job.channels <= kSpread ? job.channels : 1, whole = kSpread - kSpread % period;
    for (int64_t start = begin, size; start < stop; start += size) {
      const int64_t most = whole - start % period;
      size = stop - start < most ? stop - start : most;
      spread(job, job.eps, sample, start, size, eps);
      spread(job, job.alpha, sample, start, size, alpha);
      if (job.mask != nullptr) {
        SK_INDEPENDENT
        for (int64_t i = 0; i < size; ++i) alpha[i] = job.mask[start + i] ? alpha[i] : T(0);
      }
      SK_INDEPENDENT
      for (int64_t i = 0; i < size; ++i) element(LinfStep<T>{alpha[i], eps[i], lowest, highest}, start + i);
      out.write(x_adv, sample, start, size);
    }
    begin = stop;
  }
}

template <class T, class G> void linf(const AttackStep& job, int64_t begin, int64_t end) {
  T* x_adv = static_cast<T*>(job.x_adv);
  const G* grad = static_cast<const G*>(job.grad);
  const T* x = static_cast<const T*>(job.x);
  if (grad == nullptr) {
    linf_blocks<T>(job, begin, end, [=](const auto& step, int64_t i) SK_INLINE_LAMBDA {
      x_adv[i] = step(x_adv[i], T(0), x[i]);
    });
  } else if (is_plain(job)) {
    const LinfStep<T> step{T(job.alpha.number), T(job.eps.number), T(job.lowest), T(job.highest)};
    SK_INDEPENDENT
    for (int64_t i = begin; i < end; ++i) x_adv[i] = step(x_adv[i], load(grad[i]), x[i]);
  } else {
    linf_blocks<T>(job, begin, end, [=](const auto& step, int64_t i) SK_INLINE_LAMBDA {
      x_adv[i] = step(x_adv[i], load(grad[i]), x[i]);
    });
  }
}

template <class T, class G> void apgd_linf(const AttackStep& job, int64_t begin, int64_t end) {
  T *x_adv = static_cast<T*>(job.x_adv), *x_prev = static_cast<T*>(job.x_prev);
  const G* grad = static_cast<const G*>(job.grad);
  const T* x = static_cast<const T*>(job.x);
  // Constants, one loop each: a choice within it would keep it from being vectorised.
  const auto run = [&](auto first) {
    linf_blocks<T>(job, begin, end, [=](const auto& step, int64_t i) SK_INLINE_LAMBDA {
      const T found = x_adv[i];
      x_adv[i] = step.with_momentum(found, load(grad[i]), x[i], x_prev[i], first);
      x_prev[i] = found;
    });
  };
  job.first ? run(std::true_type{}) : run(std::false_type{});
}

template <class T, class G> void momentum_linf(const AttackStep& job, int64_t begin, int64_t end, void* room) {
  T *x_adv = static_cast<T*>(job.x_adv), *momentum = static_cast<T*>(job.momentum);
  const G* grad = static_cast<const G*>(job.grad);
  const T* x = static_cast<const T*>(job.x);
  for (int64_t sample = begin; sample < end; ++sample) {
    if (job.active != nullptr && !job.active[sample]) continue;
    const int64_t first = sample * job.sample_size;
    const auto mean = mean_gradient<T>(Team(room), grad + first, job.sample_size);
    const T decay = T(job.decay);
    const auto element = [=](const auto& step, int64_t i) SK_INLINE_LAMBDA {
      const T g = decay * momentum[i] + mean.share(load(grad[i])), moved = step(x_adv[i], g, x[i]);
      momentum[i] = g;
      x_adv[i] = moved;
    };
    if (is_plain(job)) {
      const LinfStep<T> step{T(job.alpha.number), T(job.eps.number), T(job.lowest), T(job.highest)};
      SK_INDEPENDENT
      for (int64_t i = first; i < first + job.sample_size; ++i) element(step, i);
    } else {
      linf_blocks<T>(job, first, first + job.sample_size, element);
    }
  }
}

inline void add_linf(StepKernels& k) {
#define SK_ALL(T, G, t, g)                       \
  k.linf[t][int(DType::g)] = &linf<T, G>;        \
  k.apgd_linf[t][int(DType::g)] = &apgd_linf<T, G>;
  SK_ALL(float, float, 0, float32)
  SK_ALL(float, double, 0, float64)
  SK_ALL(float, BFloat16, 0, bfloat16)
  SK_ALL(float, Half, 0, float16)
  SK_ALL(double, float, 1, float32)
  SK_ALL(double, double, 1, float64)
  SK_ALL(double, BFloat16, 1, bfloat16)
  SK_ALL(double, Half, 1, float16)
#undef SK_ALL
  k.momentum_linf[0][int(DType::float32)] = &momentum_linf<float, float>;
  k.momentum_linf[0][int(DType::bfloat16)] = &momentum_linf<float, BFloat16>;
  k.momentum_linf[0][int(DType::float16)] = &momentum_linf<float, Half>;
  k.momentum_linf[1][int(DType::float64)] = &momentum_linf<double, double>;
}

}  // namespace sat_kernels::cpu::SK_TARGET
