// The GPU's kernels of what follows a convolution, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../affine_act.h"

namespace sat_kernels::cuda {

// Forward or backward, over at least one element, and fewer than 2^32 channels; s: sum's number type.
void affine_act(Pass, const AffineAct&, DType s, cudaStream_t);

}  // namespace sat_kernels::cuda
