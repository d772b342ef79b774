// The steps that need sums over a sample.
#pragma once

#include "../formulas/l1.h"
#include "../formulas/l2.h"
#include "attacks.h"
#include "out.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

// Gradients as the formulas take them: 0 where the mask is false.
template <class G> struct WholeGradient {
  const G* grad;
  static constexpr bool exists() { return true; }
  SK_FN Opmath<G> operator()(int64_t i) const { return load(grad[i]); }
};
template <class G> struct MaskedGradient {
  const G* grad;
  const bool* mask;
  static constexpr bool exists() { return true; }
  SK_FN Opmath<G> operator()(int64_t i) const { return chosen(mask[i], load(grad[i]), Opmath<G>(0)); }
};

// Calls step(first, x_adv, x, alpha, ball) for the active samples, of which `first` is the first element.
template <class T, class Step>
SK_FN void each_sample(const AttackStep& job, int64_t begin, int64_t end, const Step& step) {
  Out out(job);
  for (int64_t sample = begin; sample < end; ++sample) {
    if (job.active != nullptr && !job.active[sample]) continue;
    const int64_t first = sample * job.sample_size;
    T* x_adv = static_cast<T*>(job.x_adv);
    const Ball<T> ball{size_of<T>(job.eps, sample), {T(job.lowest), T(job.highest)}};
    step(first, x_adv + first, static_cast<const T*>(job.x) + first, size_of<T>(job.alpha, sample), ball);
    out.write(x_adv, sample, first, job.sample_size);
  }
}

// Calls step(gradient) with that of the sample.
template <class G, class Step> SK_FN void with_gradient(const AttackStep& job, int64_t first, const Step& step) {
  const G* grad = static_cast<const G*>(job.grad) + first;
  if (job.grad == nullptr) {
    step(NoGradient<Opmath<G>>());
  } else if (job.mask == nullptr) {
    step(WholeGradient<G>{grad});
  } else {
    step(MaskedGradient<G>{grad, job.mask + first});
  }
}

template <class T, class G> void l2(const AttackStep& job, int64_t begin, int64_t end, void* room) {
  each_sample<T>(job, begin, end, [&](int64_t first, T* x_adv, const T* x, T alpha, const Ball<T>& ball) {
    with_gradient<G>(job, first, [&](const auto& gradient) {
      l2_step(Team(room), x_adv, gradient, x, job.sample_size, alpha, ball);
    });
  });
}

template <class T, class G> void apgd_l2(const AttackStep& job, int64_t begin, int64_t end, void* room) {
  each_sample<T>(job, begin, end, [&](int64_t first, T* x_adv, const T* x, T alpha, const Ball<T>& ball) {
    const WholeGradient<G> gradient{static_cast<const G*>(job.grad) + first};
    apgd_l2_step(Team(room), x_adv, static_cast<T*>(job.x_prev) + first, gradient, x, job.sample_size, alpha, ball,
                 job.first);
  });
}

template <class T, class G> void l1(const AttackStep& job, int64_t begin, int64_t end, void* room) {
  each_sample<T>(job, begin, end, [&](int64_t first, T* x_adv, const T* x, T alpha, const Ball<T>& ball) {
    const double top_k = job.top_k.of ? double(size_of<int64_t>(job.top_k, first / job.sample_size)) : job.top_k.number;
    with_gradient<G>(job, first, [&](const auto& gradient) {
      l1_step(Team(room), x_adv, gradient, x, job.sample_size, alpha, top_k, job.skip_faces, ball);
    });
  });
}

inline void add_norms(StepKernels& k) {
#define SK_ALL(T, G, t, g)                   \
  k.l2[t][int(DType::g)] = &l2<T, G>;        \
  k.l1[t][int(DType::g)] = &l1<T, G>;        \
  k.apgd_l2[t][int(DType::g)] = &apgd_l2<T, G>;
  SK_ALL(float, float, 0, float32)
  SK_ALL(float, BFloat16, 0, bfloat16)
  SK_ALL(float, Half, 0, float16)
  SK_ALL(double, double, 1, float64)
#undef SK_ALL
}

}  // namespace sat_kernels::cpu::SK_TARGET
