// The state of attacks.
#pragma once

#include "../formulas/state.h"
#include "attacks.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

// Any type is read and written as it is.
struct CopyingTeam : Team {
  CopyingTeam() : Team(nullptr) {}
  template <class S> SK_FN static S get(const S* from, int64_t i) { return from[i]; }
  template <class S> SK_FN static void put(S* to, int64_t i, S value) { to[i] = value; }
};

template <class T> void keep(const KeepBest& job, int64_t begin, int64_t end) {
  for (int64_t sample = begin; sample < end; ++sample) keep_best<T>(CopyingTeam(), job, sample);
}

template <class T, class G> void update(const ApgdUpdate& job, int64_t begin, int64_t end) {
  for (int64_t sample = begin; sample < end; ++sample) apgd_update<T, G>(CopyingTeam(), job, sample);
}

inline StateKernels state_kernels() {
  return {{&keep<float>, &keep<double>},
          {{&update<float, uint16_t>, &update<float, uint32_t>, &update<float, uint64_t>},
           {&update<double, uint16_t>, &update<double, uint32_t>, &update<double, uint64_t>}}};
}

}  // namespace sat_kernels::cpu::SK_TARGET
