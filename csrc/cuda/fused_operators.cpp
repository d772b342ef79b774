// Perturbed activations, a network's first layer, and what follows a convolution, on a GPU.
#include "../affine_act_operators.h"
#include "../conv_act_operators.h"

#include "affine_act.h"
#include "conv_act.h"
#include "latent.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

// What a block may use of shared memory, on the current device.
int shared_bytes() {
  int device = 0, bytes = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return bytes;
}

void check_fits(const ConvGeometry& size) {
  STD_TORCH_CHECK(conv_fits(size, shared_bytes()), "weight is ", size.kernel_height, " x ", size.kernel_width,
                  ": expected a kernel that fits the GPU's shared memory, as those of up to 20 x 20 do");
}

struct Cuda {
  static void latent(LatentPass pass, const LatentJob& job, const Tensor& z) {
    // Kernels find an element's channel by 32-bit numbers.
    const bool by_channel = job.f.channels > 1 || job.eps.per_channel || job.alpha.per_channel || job.lo.per_channel ||
                            job.hi.per_channel;
    STD_TORCH_CHECK(!by_channel || job.sample_size <= 0xffffffff, "z: ", job.sample_size,
                    " elements: expected at most 2^32 - 1 with numbers per channel");
    const On on(z);
    cuda::latent(pass, job, dtype_of(z), on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
  static void conv_forward(const ConvForward& job, const Tensor& x) {
    const On on(x);
    check_fits(job.layer.size);
    cuda::conv_forward(job, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
  static void conv_step(const ConvStep& job, const Tensor& x_adv) {
    const On on(x_adv);
    check_fits(job.layer.size);
    const int shared = shared_bytes();
    const int64_t bytes = conv_step_room(job, shared);
    Tensor room;
    if (bytes > 0) room = contiguous_empty(x_adv, {(bytes + 3) / 4}, ScalarType::Float);
    cuda::conv_step(job, bytes > 0 ? room.mutable_data_ptr() : nullptr, shared, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
  static void affine_act(Pass pass, const AffineAct& job, const Tensor& sum) {
    STD_TORCH_CHECK(job.channels <= 0xffffffff, "input: ", job.channels, " channels: expected at most 2^32 - 1");
    const On on(sum);
    cuda::affine_act(pass, job, dtype_of(sum), on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  using namespace sat_kernels;
  if (cuda::left_to_triton()) return;
  register_latent_operators<cuda::Cuda>(m);
  register_conv_act_operators<cuda::Cuda>(m);
  register_affine_act_operators<cuda::Cuda>(m);
}
