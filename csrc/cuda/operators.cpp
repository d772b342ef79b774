// The operators on a GPU: torch's current stream, the tensor's device, scratch memory.
#include "../operators.h"

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <cstdlib>
#include <string_view>

#include "kernels.h"

namespace sat_kernels::cuda {
namespace {

// torch's current stream. The function is looked up in the library that torch has loaded: linked directly, the
// extension could not be imported under a torch without CUDA.
cudaStream_t current_stream(int32_t device) {
  using Function = int32_t (*)(int32_t, void**);
  static const Function function = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library ? reinterpret_cast<Function>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  void* stream = nullptr;
  STD_TORCH_CHECK(function && function(device, &stream) == 0, "sat_kernels: torch's current CUDA stream is not to be had");
  return static_cast<cudaStream_t>(stream);
}

void check(cudaError_t error, const char* what) {
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

struct Cuda {
  static void run(Activation activation, Pass pass, const Tensor& input, const Elementwise& job) {
    const DType dtype = dtype_of(input);
    const Kernels& k = kernels(dtype);
    const int64_t size = input.numel();
    const bool sums = pass == Pass::parameter_backward;
    if (size == 0 && !sums) return;
    const On on(input);
    if (size == 0) {
      const size_t bytes = job.channels * (dtype == DType::float64 ? sizeof(double) : sizeof(float));
      for (void* grads : job.parameter_grads) {
        if (grads != nullptr) check(cudaMemsetAsync(grads, 0, bytes, on.stream), "cudaMemsetAsync");
      }
      return;
    }
    Tensor partial;
    if (sums) partial = torch::stable::new_empty(input, {k.partial_sums(job, size)}, opmath_of(input));
    k.elementwise(activation, pass, job, size, sums ? partial.mutable_data_ptr() : nullptr, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }

  static void step_linf(const Tensor& x_adv, DType grad, const Step& step) {
    const int64_t size = x_adv.numel();
    if (size == 0) return;
    const On on(x_adv);
    const Kernels& k = kernels(grad);
    (dtype_of(x_adv) == DType::float64 ? k.step_linf_double : k.step_linf_float)(step, size, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

// SAT_KERNELS_BACKEND=triton leaves these operators to Triton.
bool left_to_triton() {
  const char* backend = std::getenv("SAT_KERNELS_BACKEND");
  return backend != nullptr && std::string_view(backend) == "triton";
}

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_operators<sat_kernels::cuda::Cuda>(m);
}
