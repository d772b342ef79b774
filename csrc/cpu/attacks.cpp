// Choice of attacks' kernels on the CPU.
#include "attacks.h"

#include "dispatch.h"

namespace sat_kernels::cpu {

namespace baseline {
const AttackKernels& attack_kernels();
}
namespace avx2 {
const AttackKernels& attack_kernels();
}
namespace avx512 {
const AttackKernels& attack_kernels();
}

const AttackKernels& attack_kernels() {
#if defined(__x86_64__)
  static const AttackKernels& best =
      for_this_machine(&baseline::attack_kernels, &avx2::attack_kernels, &avx512::attack_kernels);
  return best;
#else
  return baseline::attack_kernels();
#endif
}

}  // namespace sat_kernels::cpu
