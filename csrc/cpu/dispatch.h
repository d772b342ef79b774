// What the operators on the CPU have in common: choice of the kernels, threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdlib>
#include <string_view>
#include <vector>

namespace sat_kernels::cpu {

inline std::string_view setting(const char* variable) {
  const char* found = std::getenv(variable);
  return found == nullptr ? "" : found;
}

// Defines name(), a table of kernels: of those of the same name in the namespaces of the instruction sets, the best for this
// machine. SAT_KERNELS_CPU_CAPABILITY=baseline or avx2 asks for less than it has, so that it can be tested.
#if defined(__x86_64__)
#define SK_FOR_THIS_MACHINE(Table, name)                                                             \
  namespace baseline { const Table& name(); }                                                        \
  namespace avx2 { const Table& name(); }                                                            \
  namespace avx512 { const Table& name(); }                                                          \
  const Table& name() {                                                                              \
    static const Table& best = for_this_machine(&baseline::name, &avx2::name, &avx512::name);        \
    return best;                                                                                     \
  }
template <class Table> const Table& for_this_machine(const Table& (*baseline)(), const Table& (*avx2)(), const Table& (*avx512)()) {
  const std::string_view wanted = setting("SAT_KERNELS_CPU_CAPABILITY");
  if (wanted == "baseline") return baseline();
  if (wanted != "avx2" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return avx512();
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2() : baseline();
}
#else
#define SK_FOR_THIS_MACHINE(Table, name)      \
  namespace baseline { const Table& name(); } \
  const Table& name() { return baseline::name(); }
#endif

// Triton's interpreter takes CPU tensors, whose kernels are then registered from Python.
inline bool left_to_triton() {
  return setting("SAT_KERNELS_BACKEND") == "triton" && setting("TRITON_INTERPRET") == "1";
}

// Calls run(begin, end, room) for all of [0, samples): `bytes` of room for each thread, and about 10 us of work for each
// task, if an element takes a nanosecond.
template <class Run> void over_samples(int64_t samples, int64_t sample_size, int64_t bytes, const Run& run) {
  const int64_t grain = std::max<int64_t>(1, 10'000 / std::max<int64_t>(1, sample_size));
  torch::stable::parallel_for(0, samples, grain, [&](int64_t begin, int64_t end) {
    std::vector<double> room(bytes / 8);
    run(begin, end, room.data());
  });
}

}  // namespace sat_kernels::cpu
