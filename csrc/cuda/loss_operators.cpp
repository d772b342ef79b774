// The losses on a GPU.
#include "../loss_operators.h"

#include "losses.h"
#include "stream.h"

namespace sat_kernels::cuda {
namespace {

struct Cuda {
  static constexpr bool kReadsLabels = false;
  static void losses(const Tensor& logits, const LossJob& job) {
    const On on(logits);
    const int64_t bytes = loss_room(job);
    Tensor room;
    if (bytes > 0) room = torch::stable::new_empty(logits, {bytes}, ScalarType::Byte);
    run_losses(job, dtype_of(logits), bytes > 0 ? room.mutable_data_ptr() : nullptr, on.stream);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace
}  // namespace sat_kernels::cuda

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CUDA, m) {
  if (!sat_kernels::cuda::left_to_triton()) sat_kernels::register_loss_operators<sat_kernels::cuda::Cuda>(m);
}
