// The GPU's kernels for losses, for ctypes.
#include "controls.h"
#include "cuda/losses.h"

using namespace sat_kernels;

extern "C" {

int64_t loss_room(const LossJob* job) { return cuda::loss_room(*job); }

const char* losses(int type, const LossJob* job, void* room) {
  return emulator::error_of([&] { cuda::run_losses(*job, DType(type), room, nullptr); });
}
}
