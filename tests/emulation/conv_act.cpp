// The GPU's kernels of a network's first layer, for ctypes.
#include "cuda/conv_act.h"

#include "controls.h"

using namespace sat_kernels;

extern "C" {

const char* conv_forward(const ConvForward* job) {
  return emulator::error_of([&] { cuda::conv_forward(*job, nullptr); });
}

int64_t conv_step_room(const ConvStep* job, int shared_bytes) { return cuda::conv_step_room(*job, shared_bytes); }

bool conv_fits(const ConvGeometry* size, int shared_bytes) { return cuda::conv_fits(*size, shared_bytes); }

const char* conv_step(const ConvStep* job, void* room, int shared_bytes) {
  return emulator::error_of([&] { cuda::conv_step(*job, room, shared_bytes, nullptr); });
}
}
