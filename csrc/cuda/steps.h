// The GPU's kernels of steps, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../steps.h"

namespace sat_kernels::cuda {

// Over at least one element; the number types of x_adv and of the gradient.
void linf(const AttackStep&, DType x, DType grad, cudaStream_t);
void apgd_linf(const AttackStep&, DType x, DType grad, cudaStream_t);
void momentum_linf(const AttackStep&, DType x, DType grad, cudaStream_t);

void l2(const AttackStep&, DType x, DType grad, cudaStream_t);
void apgd_l2(const AttackStep&, DType x, DType grad, cudaStream_t);
// room: so many bytes.
int64_t l1_room(const AttackStep&, DType x);
void l1(const AttackStep&, DType x, DType grad, void* room, cudaStream_t);

}  // namespace sat_kernels::cuda
