// What every machine runs: SSE2 on x86-64, NEON on aarch64.
#define SK_TARGET baseline
#include "loops.h"

namespace sat_kernels::cpu::baseline {
const Kernels& kernels() {
  static const Kernels k = make_kernels("baseline");
  return k;
}
}  // namespace sat_kernels::cpu::baseline
