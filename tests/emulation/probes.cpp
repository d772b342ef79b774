// Small kernels, right and wrong, that the emulator is tested with.
#include "controls.h"

namespace sat_kernels::cuda {
namespace {

constexpr int kThreads = 64;

struct Probe {
  const float* in;
  float* out;
  int64_t size;
};

// Every block's sum, with the barriers that are not left out.
template <int Without> __global__ void block_sum(Probe p) {
  __shared__ float values[kThreads];
  for (int round = 0; round < 2; ++round) {
    if constexpr (Without != 1) __syncthreads();
    values[threadIdx.x] = p.in[(2 * blockIdx.x + round) * kThreads + threadIdx.x];
    for (int width = kThreads / 2; width > 0; width /= 2) {
      if constexpr (Without != 2) __syncthreads();
      if (int(threadIdx.x) < width) values[threadIdx.x] += values[threadIdx.x + width];
    }
    if (threadIdx.x == 0) p.out[2 * blockIdx.x + round] = values[0];
  }
}

__global__ void warp_sums(Probe p) {
  float down = p.in[blockIdx.x * blockDim.x + threadIdx.x], all = down;
  for (int delta = 16; delta > 0; delta /= 2) {
    down += __shfl_down_sync(0xffffffffu, down, delta);
    all += __shfl_xor_sync(0xffffffffu, all, delta);
  }
  const int64_t warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  if (threadIdx.x % 32 == 0) p.out[2 * warp] = down;
  if (threadIdx.x % 32 == 31) p.out[2 * warp + 1] = all;
}

__global__ void some_lanes_shuffle(Probe p) {
  if (threadIdx.x != 5) p.out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

__global__ void some_threads_wait(Probe p) {
  if (threadIdx.x < p.size) __syncthreads();
}

__global__ void barriers_apart(Probe) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void unwritten_shared_memory(Probe p) {
  __shared__ float values[kThreads];
  __shared__ __nv_bfloat16 halves[kThreads];
  p.out[2 * threadIdx.x] = values[threadIdx.x];
  p.out[2 * threadIdx.x + 1] = __bfloat162float(halves[threadIdx.x]);
  values[threadIdx.x] = 1;
  halves[threadIdx.x] = __float2bfloat16_rn(1.0f);
}

// The launch has a byte of shared memory for each thread.
__global__ void dynamic_shared(Probe p) {
  float* values = reinterpret_cast<float*>(emulator::dynamic_shared_memory());
  if (int64_t(threadIdx.x) >= p.size) return;
  p.out[threadIdx.x] = values[threadIdx.x];
  values[threadIdx.x] = p.in[threadIdx.x];
}

// Thread i copies four numbers from 4 * i on.
__global__ void copy(Probe p) {
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
  if (first >= p.size) return;
  emulator::loaded(p.in + first, 16);
  emulator::stored(p.out + first, 16);
  for (int i = 0; i < 4; ++i) p.out[first + i] = p.in[first + i];
}

__global__ void order_of_threads(Probe p) { p.out[int64_t(p.out[p.size]++)] = blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void blocks_that_run(Probe p) { p.out[blockIdx.x + gridDim.x * blockIdx.y] = 1; }

}  // namespace
}  // namespace sat_kernels::cuda

using namespace sat_kernels;

extern "C" const char* probe(int kernel, const float* in, float* out, int64_t size, int grid, int grid_y, int block) {
  constexpr void (*kernels[])(cuda::Probe) = {
      cuda::block_sum<0>, cuda::block_sum<1>,      cuda::block_sum<2>,      cuda::warp_sums,
      cuda::some_lanes_shuffle, cuda::some_threads_wait, cuda::barriers_apart, cuda::unwritten_shared_memory,
      cuda::copy,         cuda::order_of_threads,  cuda::blocks_that_run, cuda::dynamic_shared};
  return emulator::error_of([&] {
    cuda::launch(kernels[kernel], dim3(grid, grid_y), dim3(block), block, nullptr, cuda::Probe{in, out, size});
  });
}
