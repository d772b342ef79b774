// How kernels are launched.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>

#include "memory.cuh"

namespace sat_kernels::cuda {

constexpr int kThreads = 128;
// About what an H100 or H200 holds at a time: loops stride over what is left. It does not depend on the device, so that
// sums do not either.
constexpr int64_t kBlocks = 2048;

constexpr int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

#ifndef SK_EMULATED
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, int threads, cudaStream_t stream, const A&... arguments) {
  kernel<<<grid, threads, 0, stream>>>(P(arguments)...);
}
#endif

}  // namespace sat_kernels::cuda
