// The GPU's kernels of what follows a convolution, for ctypes.
#include "cuda/affine_act.h"

#include "controls.h"

using namespace sat_kernels;

extern "C" const char* affine_act(int pass, int s, const AffineAct* job) {
  return emulator::error_of([&] { cuda::affine_act(Pass(pass), *job, DType(s), nullptr); });
}
