// How threads take elements: 16 bytes in one access wherever addresses allow it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "../formulas/number.h"

// The emulator checks and counts every access.
#ifdef SK_EMULATED
#include "emulator.h"
#define SK_LOADED(pointer, bytes) ::sat_kernels::emulator::loaded(pointer, bytes)
#define SK_STORED(pointer, bytes) ::sat_kernels::emulator::stored(pointer, bytes)
#else
#define SK_LOADED(pointer, bytes)
#define SK_STORED(pointer, bytes)
#endif

namespace sat_kernels::cuda {

// The type that S is computed in.
template <class S> using Number = std::conditional_t<sizeof(S) == 2, Approximate, S>;
// The type of parameters and of their gradients.
template <class S> using Exact = std::conditional_t<sizeof(S) == 8, double, float>;

constexpr int kAccess = 16;
template <class S> constexpr int kPerAccess = kAccess / int(sizeof(S));

// N neighbours in memory.
template <class S, int N> struct alignas(N * sizeof(S) < kAccess ? N * sizeof(S) : kAccess) Pack {
  S of[N];
};

template <class P> __device__ __forceinline__ P read(const void* from) {
  constexpr int bytes = sizeof(P) < kAccess ? sizeof(P) : kAccess;
  for (int i = 0; i < int(sizeof(P)); i += bytes) SK_LOADED(static_cast<const char*>(from) + i, bytes);
  return *static_cast<const P*>(from);
}
template <class P> __device__ __forceinline__ void write(void* to, const P& values) {
  constexpr int bytes = sizeof(P) < kAccess ? sizeof(P) : kAccess;
  for (int i = 0; i < int(sizeof(P)); i += bytes) SK_STORED(static_cast<char*>(to) + i, bytes);
  *static_cast<P*>(to) = values;
}

template <class T> __device__ __forceinline__ T read_one(const T* from) { return read<Pack<T, 1>>(from).of[0]; }
template <class T> __device__ __forceinline__ void write_one(T* to, T value) { write(to, Pack<T, 1>{value}); }

// Whether a Pack of N elements may be read or written at p.
template <int N, class S> bool takes_packs(const S* p) {
  return p == nullptr || reinterpret_cast<uintptr_t>(p) % alignof(Pack<S, N>) == 0;
}

__device__ __forceinline__ float widened(__half x) { return __half2float(x); }
__device__ __forceinline__ float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ double widened(double x) { return x; }
__device__ __forceinline__ bool widened(bool x) { return x; }

template <class S, int N, class T> __device__ __forceinline__ Pack<S, N> rounded(const T (&values)[N]) {
  Pack<S, N> result;
  // In pairs, for which there is one instruction.
  if constexpr (std::is_same_v<S, __half>) {
    for (int j = 0; j < N; j += 2) {
      const __half2 pair = __floats2half2_rn(float(values[j]), float(values[j + 1]));
      result.of[j] = pair.x;
      result.of[j + 1] = pair.y;
    }
  } else if constexpr (std::is_same_v<S, __nv_bfloat16>) {
    for (int j = 0; j < N; j += 2) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(float(values[j]), float(values[j + 1]));
      result.of[j] = pair.x;
      result.of[j + 1] = pair.y;
    }
  } else {
    for (int j = 0; j < N; ++j) result.of[j] = values[j];
  }
  return result;
}

// The N elements that one of `lanes` threads takes of the lanes * N from `start` on: neighbours if `packed`, else
// every lanes-th, so that those of neighbouring threads are neighbours. `end`: of what there is to take.
template <int N> struct Slice {
  int64_t first, end;
  int step;
  bool whole;

  __device__ __forceinline__ Slice(int64_t start, int64_t end, int lane, int lanes, bool packed)
      : first(start + (packed ? lane * N : lane)), end(end), step(packed ? 1 : lanes), whole(packed && first + N <= end) {}

  __device__ __forceinline__ int64_t index(int j) const { return first + int64_t(j) * step; }
  __device__ __forceinline__ bool has(int j) const { return whole || index(j) < end; }

  // The elements of the row that begins at `row`; 0 for those that there are not.
  template <class T, class S> __device__ __forceinline__ void load(const S* row, T (&values)[N]) const {
    if (whole) {
      const auto pack = read<Pack<S, N>>(row + first);
      for (int j = 0; j < N; ++j) values[j] = T(widened(pack.of[j]));
    } else {
      for (int j = 0; j < N; ++j) values[j] = T(index(j) < end ? widened(read_one(row + index(j))) : 0);
    }
  }
  template <class T, class S> __device__ __forceinline__ void store(S* row, const T (&values)[N]) const {
    const auto pack = rounded<S, N>(values);
    if (whole) {
      write(row + first, pack);
    } else {
      for (int j = 0; j < N; ++j) {
        if (index(j) < end) write_one(row + index(j), pack.of[j]);
      }
    }
  }
};

}  // namespace sat_kernels::cuda
