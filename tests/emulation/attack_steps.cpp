// The GPU's steps of attacks, for ctypes.
#include "controls.h"
#include "cuda/steps.h"

using namespace sat_kernels;

extern "C" {

#define SK_STEP(name)                                                                     \
  const char* name(int x, int grad, const AttackStep* job) {                              \
    return emulator::error_of([&] { cuda::name(*job, DType(x), DType(grad), nullptr); }); \
  }
SK_STEP(linf)
SK_STEP(apgd_linf)
SK_STEP(momentum_linf)
SK_STEP(l2)
SK_STEP(apgd_l2)

int64_t l1_room(int x, const AttackStep* job) { return cuda::l1_room(*job, DType(x)); }

const char* l1(int x, int grad, const AttackStep* job, void* room) {
  return emulator::error_of([&] { cuda::l1(*job, DType(x), DType(grad), room, nullptr); });
}
}
