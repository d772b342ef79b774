// What the kernels of activations that are fused with steps have in common.
#pragma once

#include "any_activation.cuh"
#include "options.cuh"

namespace sat_kernels::cuda {

// Calls use with a null pointer to the type of numbers that are computed in T: loads and stores choose it, not kernels.
template <class T, class Use> __device__ __forceinline__ void with_storage(DType s, const Use& use) {
  if constexpr (sizeof(T) == 8) {
    use(static_cast<double*>(nullptr));
  } else {
    switch (s) {
      case DType::bfloat16: return use(static_cast<__nv_bfloat16*>(nullptr));
      case DType::float16: return use(static_cast<__half*>(nullptr));
      default: return use(static_cast<float*>(nullptr));
    }
  }
}

// As write(), of 8 or 16 bytes, in one instruction: the compiler makes single stores of a Pack whose address it knows
// nothing about.
template <class P> __device__ __forceinline__ void write_whole(void* to, const P& pack) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(P) == 16) {
    const uint4 w = bit_cast<uint4>(pack);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w) : "memory");
  } else {
    const uint2 w = bit_cast<uint2>(pack);
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(w.x), "r"(w.y) : "memory");
  }
#else
  write(to, pack);
#endif
}

// Of a sample and channel.
template <class T> __device__ __forceinline__ T size_at(const Size& size, int64_t sample, int64_t channel) {
  if (size.of == nullptr) return T(size.number);
  return read_one(static_cast<const T*>(size.of) + sample * size.per_sample + channel * size.per_channel);
}

// A job for T, and what divides an element's index.
template <class T> struct Latent {
  LatentJob job;
  AnyActivation<T> f;
  DType s;
  Divisor inner, channels;
  bool bounded;
  Latent(const LatentJob& job, DType s)
      : job(job), f(job.f), s(s), inner(job.inner), channels(job.channels), bounded(is_bounded(job)) {}

  // Of element i of a sample.
  __device__ __forceinline__ uint32_t channel(int64_t i) const {
    const uint32_t row = inner.quotient(uint32_t(i));
    return row - channels.quotient(row) * channels.by;
  }
};

}  // namespace sat_kernels::cuda
