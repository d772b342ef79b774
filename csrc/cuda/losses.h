// Losses on a GPU, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../losses.h"

namespace sat_kernels::cuda {

// Bytes that a job needs for what registers do not hold.
int64_t loss_room(const LossJob& job);
// `type`: of the logits. The job has rows.
void run_losses(const LossJob& job, DType type, void* room, cudaStream_t stream);

}  // namespace sat_kernels::cuda
