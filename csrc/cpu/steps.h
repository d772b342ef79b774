// The steps that need sums over a sample.
#pragma once

#include "../formulas/l1.h"
#include "../formulas/l2.h"
#include "attacks.h"
#include "out.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

// A sample's gradient as the formulas take it.
template <class T> struct Gradient {
  const T* grad;
  static constexpr bool exists() { return true; }
  SK_FN T operator()(int64_t i) const { return grad[i]; }
  SK_FN auto operator()(Eight at) const requires std::is_same_v<T, float> { return Team::read(grad, at); }
};

// In T, and 0 where the mask is false. What has to be made for that is held by the team.
template <class T, class G> Gradient<T> gradient_of(const AttackStep& job, int64_t first, Team& team) {
  const G* grad = static_cast<const G*>(job.grad) + first;
  if constexpr (std::is_same_v<T, G>) {
    if (job.mask == nullptr) return {grad};
  }
  T* made = team.template hold<T>(job.sample_size);
  SK_INDEPENDENT
  for (int64_t i = 0; i < job.sample_size; ++i) made[i] = load(grad[i]);
  if (job.mask != nullptr) {
    const bool* mask = job.mask + first;
    SK_INDEPENDENT
    for (int64_t i = 0; i < job.sample_size; ++i) made[i] = chosen(mask[i], made[i], T(0));
  }
  return {made};
}

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

// The steps of a sample. Each is compiled once for T, and not for every type of gradients.
template <class T, class Gradient>
[[gnu::noinline]] void l2_sample(Team team, T* x_adv, Gradient gradient, const T* x, int64_t size, T alpha, Ball<T> ball) {
  l2_step(team, x_adv, gradient, x, size, alpha, ball);
}
template <class T, class Gradient>
[[gnu::noinline]] void l1_sample(Team team, T* x_adv, Gradient gradient, const T* x, int64_t size, T alpha, double top_k,
                                 bool skip_faces, Ball<T> ball) {
  l1_step(team, x_adv, gradient, x, size, alpha, top_k, skip_faces, ball);
}
template <class T, class Gradient>
[[gnu::noinline]] void apgd_l2_sample(Team team, T* x_adv, T* x_prev, Gradient gradient, const T* x, int64_t size,
                                      T alpha, Ball<T> ball, bool first) {
  apgd_l2_step(team, x_adv, x_prev, gradient, x, size, alpha, ball, first);
}

template <class T, class G> void l2(const AttackStep& job, int64_t begin, int64_t end, void* room) {
  each_sample<T>(job, begin, end, [&](int64_t first, T* x_adv, const T* x, T alpha, const Ball<T>& ball) {
    Team team(room);
    const auto step = [&](const auto& gradient) { l2_sample(team, x_adv, gradient, x, job.sample_size, alpha, ball); };
    job.grad == nullptr ? step(NoGradient<T>()) : step(gradient_of<T, G>(job, first, team));
  });
}

template <class T, class G> void apgd_l2(const AttackStep& job, int64_t begin, int64_t end, void* room) {
  each_sample<T>(job, begin, end, [&](int64_t first, T* x_adv, const T* x, T alpha, const Ball<T>& ball) {
    Team team(room);
    const Gradient<T> gradient = gradient_of<T, G>(job, first, team);
    apgd_l2_sample(team, x_adv, static_cast<T*>(job.x_prev) + first, gradient, x, job.sample_size, alpha, ball, job.first);
  });
}

template <class T, class G> void l1(const AttackStep& job, int64_t begin, int64_t end, void* room) {
  each_sample<T>(job, begin, end, [&](int64_t first, T* x_adv, const T* x, T alpha, const Ball<T>& ball) {
    const double top_k = job.top_k.of ? double(size_of<int64_t>(job.top_k, first / job.sample_size)) : job.top_k.number;
    Team team(room);
    const auto step = [&](const auto& gradient) {
      l1_sample(team, x_adv, gradient, x, job.sample_size, alpha, top_k, job.skip_faces, ball);
    };
    job.grad == nullptr ? step(NoGradient<T>()) : step(gradient_of<T, G>(job, first, team));
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
