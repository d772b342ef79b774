// The GPU's kernels of a network's first layer, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../conv_act.h"

namespace sat_kernels::cuda {

// Whether a filter and its part of an image fit into the shared memory that a block may have on the device, if it asks for
// it: kernels of up to 20 x 20 always do.
bool conv_fits(const ConvGeometry&, int shared_bytes);
void conv_forward(const ConvForward&, cudaStream_t);
// room: so many bytes.
int64_t conv_step_room(const ConvStep&, int shared_bytes);
void conv_step(const ConvStep&, void* room, int shared_bytes, cudaStream_t);

}  // namespace sat_kernels::cuda
