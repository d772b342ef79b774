// What the operators on a GPU have in common: torch's current stream, the tensor's device, errors.
#pragma once

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <cstdlib>
#include <string_view>

#include "../tensors.h"

namespace sat_kernels::cuda {

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

inline void check(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error != cudaErrorNoKernelImageForDevice,
                  "sat_kernels: the CUDA kernels were built for ", SK_CUDA_ARCHS, ", which does not include this GPU: ",
                  "rebuild with its architecture in TORCH_CUDA_ARCH_LIST, or set SAT_KERNELS_BACKEND=triton");
  STD_TORCH_CHECK(error == cudaSuccess, "sat_kernels: ", what, " failed: ", cudaGetErrorString(error));
}

// Makes the device of `t` current, for torch and for this library's own runtime.
struct On {
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
  explicit On(const Tensor& t) : guard(t.get_device_index()), stream(current_stream(t.get_device_index())) {
    check(cudaSetDevice(t.get_device_index()), "cudaSetDevice");
  }
};

// SAT_KERNELS_BACKEND=triton leaves these operators to Triton.
inline bool left_to_triton() {
  const char* backend = std::getenv("SAT_KERNELS_BACKEND");
  return backend != nullptr && std::string_view(backend) == "triton";
}

}  // namespace sat_kernels::cuda
