// The GPU's kernels for random starts and the state of attacks, for ctypes.
#include "controls.h"
#include "cuda/starts.h"
#include "cuda/state.h"

using namespace sat_kernels;

extern "C" {

const char* random_start(int type, const RandomStart* job) {
  return emulator::error_of([&] { cuda::run_start(*job, DType(type), nullptr); });
}

const char* keep_best(int type, const KeepBest* job) {
  return emulator::error_of([&] { cuda::run_keep_best(*job, DType(type), nullptr); });
}

const char* apgd_update(int type, int grad, const ApgdUpdate* job) {
  return emulator::error_of([&] { cuda::run_apgd_update(*job, DType(type), DType(grad), nullptr); });
}
}
