// The losses of rows of logits.
#pragma once

#include "../formulas/losses.h"
#include "attacks.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

template <LossFamily family, class S> void losses(const LossJob& job, int64_t begin, int64_t end, void* room) {
  for (int64_t row = begin; row < end; ++row) row_loss<family, S>(Team(room), job, row);
}

inline LossKernels loss_kernels() {
  LossKernels k{};
#define SK_FAMILY(family)                                                                     \
  k.of[int(LossFamily::family)][int(DType::float32)] = &losses<LossFamily::family, float>;     \
  k.of[int(LossFamily::family)][int(DType::float64)] = &losses<LossFamily::family, double>;    \
  k.of[int(LossFamily::family)][int(DType::bfloat16)] = &losses<LossFamily::family, BFloat16>; \
  k.of[int(LossFamily::family)][int(DType::float16)] = &losses<LossFamily::family, Half>;
  SK_FAMILY(softmax)
  SK_FAMILY(ranking)
  SK_FAMILY(divergence)
#undef SK_FAMILY
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
