// Every kernel for one number type.
#pragma once

#include "channels.cuh"
#include "elementwise.cuh"
#include "kernels.h"

namespace sat_kernels::cuda {

template <class S>
void elementwise(Activation activation, Pass pass, const Elementwise& job, int64_t size, void* partial,
                 cudaStream_t stream) {
  const bool one_for_all = job.channels == 1 && pass != Pass::parameter_backward;
  switch (activation) {
#define SK_FIXED(name, Formula, ...) \
  case Activation::name: return run_flat<Given<Formula, Number<S>>, S>(pass, job, size, stream);
#define SK_LEARNABLE(name, Formula, ...)                                                             \
  case Activation::name:                                                                             \
    if (one_for_all) return run_flat<Learned<Formula, Number<S>>, S>(pass, job, size, stream);       \
    return run_channels<Formula, S>(pass, job, size, partial, stream);
    SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
    default: break;
  }
}

template <class S> const Kernels& kernels_for() {
  static const Kernels kernels{&elementwise<S>, &partial_sums<S>};
  return kernels;
}

}  // namespace sat_kernels::cuda
