// Choice of attacks' kernels on the CPU.
#include "attacks.h"

#include "dispatch.h"

namespace sat_kernels::cpu {

SK_FOR_THIS_MACHINE(AttackKernels, attack_kernels)

}  // namespace sat_kernels::cpu
