// An activation that is chosen at run time. A kernel of 15 cases, of which all threads take the same, compiles in a 15th of
// the time that 15 kernels do; the choice is made once for all elements of a thread.
#pragma once

#include "../latent.h"
#include "memory.cuh"

namespace sat_kernels::cuda {

template <class T> struct AnyActivation {
  Activation which;
  T numbers[kMostNumbers];
  const T* parameters[kMostNumbers];
  bool per_channel;

  explicit AnyActivation(const ActivationOf& f) : which(f.which), per_channel(f.channels > 1) {
    for (int k = 0; k < kMostNumbers; ++k) {
      numbers[k] = T(f.numbers[k]);
      parameters[k] = static_cast<const T*>(f.parameters[k]);
    }
  }

  // f(x) and f'(x). channel(j): of x[j], below that of the parameters.
  template <int N, class Channel>
  __device__ __forceinline__ void values(const T (&x)[N], T (&y)[N], const Channel& channel) const {
    choose(channel, [&](const auto& formula) {
#pragma unroll
      for (int j = 0; j < N; ++j) y[j] = formula(j).value(x[j]);
    });
  }
  template <int N, class Channel>
  __device__ __forceinline__ void derivatives(const T (&x)[N], T (&y)[N], const Channel& channel) const {
    choose(channel, [&](const auto& formula) {
#pragma unroll
      for (int j = 0; j < N; ++j) y[j] = formula(j).derivative(x[j]);
    });
  }

 private:
  template <class Formula> __device__ __forceinline__ Formula learned(int64_t channel) const {
    const int64_t at = per_channel ? channel : 0;
    return Formula(read_one(parameters[0] + at), kParameters<Formula> > 1 ? read_one(parameters[1] + at) : T(0));
  }

  // Calls use(formula), where formula(j) is element j's.
  template <class Channel, class Use>
  __device__ __forceinline__ void choose(const Channel& channel, const Use& use) const {
    switch (which) {
#define SK_FIXED(name, Formula, ...) \
  case Activation::name: return use([made = Formula<T>(numbers[0], numbers[1])](int) { return made; });
#define SK_LEARNABLE(name, Formula, ...) \
  case Activation::name: return use([&](int j) { return learned<Formula<T>>(channel(j)); });
      SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
      default: break;
    }
  }
};

}  // namespace sat_kernels::cuda
