// The GPU's kernels of perturbed activations, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../latent.h"

namespace sat_kernels::cuda {

// Over at least one element, and fewer than 2^32 in a sample; s: z's number type.
void latent(LatentPass, const LatentJob&, DType s, cudaStream_t);

}  // namespace sat_kernels::cuda
