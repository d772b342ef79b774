// The GPU's kernels of perturbed activations, for ctypes.
#include "cuda/latent.h"

#include "controls.h"

using namespace sat_kernels;

extern "C" const char* latent(int pass, int s, const LatentJob* job) {
  return emulator::error_of([&] { cuda::latent(LatentPass(pass), *job, DType(s), nullptr); });
}
