// Where and how kernels are launched: torch's current stream, the tensor's device, 64-bit indices.
#pragma once

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include "../operators.h"

namespace sat_kernels::cuda {

constexpr int kThreads = 256;
// Enough to fill any present GPU; the loops stride over the rest.
constexpr int64_t kMaxBlocks = 8192;

// Block size times grid size elements are in flight; every thread takes one, then the one a grid further on.
__device__ __forceinline__ int64_t first_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t index_step() { return int64_t(gridDim.x) * blockDim.x; }

inline int blocks_for(int64_t size) {
  const int64_t blocks = (size + kThreads - 1) / kThreads;
  return int(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

// torch's current stream. The function is looked up in the library that torch has loaded: linked directly, the
// extension could not be imported under a torch without CUDA.
inline cudaStream_t current_stream(int32_t device) {
  using Function = int32_t (*)(int32_t, void**);
  static const Function function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library ? reinterpret_cast<Function>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  void* stream = nullptr;
  STD_TORCH_CHECK(function && function(device, &stream) == 0, "sat_kernels: torch's current CUDA stream is not to be had");
  return static_cast<cudaStream_t>(stream);
}

inline void check_launch() {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "sat_kernels: kernel launch failed: ", cudaGetErrorString(error));
}

// Makes the device of `t` current, for torch and for this library's own runtime.
struct Launch {
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
  explicit Launch(const Tensor& t) : guard(t.get_device_index()), stream(current_stream(t.get_device_index())) {
    STD_TORCH_CHECK(cudaSetDevice(t.get_device_index()) == cudaSuccess, "sat_kernels: no such CUDA device");
  }
};

struct Cuda {
  static void run(Activation activation, Pass pass, const Tensor& input, const Elementwise& job);
  static void run_with_sums(Activation activation, const Tensor& input, const Elementwise& job);
  static void step_linf(const Tensor& x_adv, DType grad, const Step& step);
};

}  // namespace sat_kernels::cuda
