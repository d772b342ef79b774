// The losses of rows of logits.
#pragma once

#include "../formulas/losses.h"
#include "attacks.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

template <LossFamily family, class T> [[gnu::noinline]] void loss_of_row(Team team, const LossJob& job, int64_t row) {
  row_loss<family, T>(team, job, row);
}

template <LossFamily family, class T> void losses(const LossJob& job, int64_t begin, int64_t end, void* room) {
  for (int64_t row = begin; row < end; ++row) loss_of_row<family, T>(Team(room), job, row);
}

// 16-bit rows by way of float ones, so that the algorithms are not compiled for them, too.
template <LossFamily family, class S> void losses_by_float(const LossJob& job, int64_t begin, int64_t end, void* room) {
  const int64_t classes = job.classes;
  Team team(room);
  float *logits = team.hold<float>(classes), *clean = team.hold<float>(classes);
  float *grad = team.hold<float>(classes), *clean_grad = team.hold<float>(classes);
  const auto widen = [=](const void* all, int64_t stride, int64_t row, float* to) {
    const S* from = static_cast<const S*>(all) + row * stride;
    SK_INDEPENDENT
    for (int64_t i = 0; i < classes; ++i) to[i] = load(from[i]);
  };
  const auto narrow = [=](const float* from, void* all, int64_t row) {
    S* to = static_cast<S*>(all) + row * classes;
    SK_INDEPENDENT
    for (int64_t i = 0; i < classes; ++i) to[i] = store<S>(from[i]);
  };
  for (int64_t row = begin; row < end; ++row) {
    LossJob one = job;
    one.rows = 1;
    one.y += row;
    if (job.targets != nullptr) one.targets += row;
    one.losses = static_cast<float*>(job.losses) + row;
    one.margins = static_cast<float*>(job.margins) + row;
    one.correct += row;
    widen(job.logits, job.row_stride, row, logits);
    one.logits = logits;
    if (job.clean != nullptr) {
      widen(job.clean, job.clean_row_stride, row, clean);
      one.clean = clean;
    }
    if (job.grad != nullptr) one.grad = grad;
    if (job.clean_grad != nullptr) one.clean_grad = clean_grad;
    loss_of_row<family, float>(team, one, 0);
    if (job.grad != nullptr) narrow(grad, job.grad, row);
    if (job.clean_grad != nullptr) narrow(clean_grad, job.clean_grad, row);
  }
}

inline LossKernels loss_kernels() {
  LossKernels k{};
#define SK_FAMILY(family)                                                                              \
  k.of[int(LossFamily::family)][int(DType::float32)] = &losses<LossFamily::family, float>;              \
  k.of[int(LossFamily::family)][int(DType::float64)] = &losses<LossFamily::family, double>;             \
  k.of[int(LossFamily::family)][int(DType::bfloat16)] = &losses_by_float<LossFamily::family, BFloat16>; \
  k.of[int(LossFamily::family)][int(DType::float16)] = &losses_by_float<LossFamily::family, Half>;
  SK_FAMILY(softmax)
  SK_FAMILY(ranking)
  SK_FAMILY(divergence)
#undef SK_FAMILY
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
