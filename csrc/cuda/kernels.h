// The GPU's kernels, for those who know tensors. Nothing here or below needs torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "../elementwise.h"

namespace sat_kernels::cuda {

// One file per number type instantiates them.
struct Kernels {
  // Runs a pass over `size` > 0 elements. partial: room for partial_sums of the numbers that are computed in.
  void (*elementwise)(Activation, Pass, const Elementwise&, int64_t size, void* partial, cudaStream_t);
  int64_t (*partial_sums)(const Elementwise&, int64_t size);
};

const Kernels& kernels_float32();
const Kernels& kernels_float64();
const Kernels& kernels_bfloat16();
const Kernels& kernels_float16();

inline const Kernels& kernels(DType dtype) {
  switch (dtype) {
    case DType::float64: return kernels_float64();
    case DType::bfloat16: return kernels_bfloat16();
    case DType::float16: return kernels_float16();
    default: return kernels_float32();
  }
}

}  // namespace sat_kernels::cuda
