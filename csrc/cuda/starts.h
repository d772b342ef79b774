// Random starts on a GPU, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../starts.h"

namespace sat_kernels::cuda {

// `type`: float32 or float64. The job has elements.
void run_start(const RandomStart& job, DType type, cudaStream_t stream);

}  // namespace sat_kernels::cuda
