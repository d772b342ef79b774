// The state of attacks on a GPU, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../elementwise.h"
#include "../state.h"

namespace sat_kernels::cuda {

// `type`: of the images, float32 or float64. There are samples.
void run_keep_best(const KeepBest& job, DType type, cudaStream_t stream);
void run_apgd_update(const ApgdUpdate& job, DType type, DType grad, cudaStream_t stream);

}  // namespace sat_kernels::cuda
