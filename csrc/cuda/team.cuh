// A block of threads that works on a sample: see formulas/team.h.
#pragma once

#include "../formulas/team.h"
#include "launch.cuh"

namespace sat_kernels::cuda {

constexpr int kWarp = 32, kMostThreads = 1024;
// Elements that each thread of a team holds of samples of T in registers: 3 floats of each of 1024 threads are a CIFAR
// image. nvcc takes minutes for 16.
template <class T> constexpr int kSlots = sizeof(T) == 8 ? 2 : 3;

// Where an element of the sample is: its index, and the slot of whoever works on it.
struct At {
  int64_t index;
  int slot;
  __device__ __forceinline__ operator int64_t() const { return index; }
  __device__ __forceinline__ int32_t short_index() const { return int32_t(index); }
};

// Slots > 0: samples of at most Slots elements for each thread; numbers that are held are in registers.
// 0: samples of any size; they are in `room`, 8 bytes for each element and number.
template <int Slots> class Team {
 public:
  template <class T> struct Registers {
    T of[Slots > 0 ? Slots : 1];
    __device__ __forceinline__ T& operator[](At at) { return of[at.slot]; }
    __device__ __forceinline__ T operator[](At at) const { return of[at.slot]; }
  };
  template <class T> struct Memory {
    T* of;
    struct Place {
      T* at;
      __device__ __forceinline__ operator T() const { return read_one(at); }
      __device__ __forceinline__ T operator=(T value) const {
        write_one(at, value);
        return value;
      }
    };
    __device__ __forceinline__ Place operator[](At at) const { return {of + at.index}; }
  };
  template <class T> using Held = std::conditional_t<(Slots > 0), Registers<T>, Memory<T>>;

  __device__ __forceinline__ explicit Team(void* room) : room_(static_cast<char*>(room)) {}

  template <class T> __device__ __forceinline__ Held<T> hold(int64_t size) {
    if constexpr (Slots > 0) {
      return {};
    } else {
      T* held = reinterpret_cast<T*>(room_);
      room_ += size * 8;
      return {held};
    }
  }

  template <class F> __device__ __forceinline__ void each(int64_t size, const F& f) const {
    if constexpr (Slots > 0) {
#pragma unroll
      for (int slot = 0; slot < Slots; ++slot) {
        const int index = int(threadIdx.x) + slot * int(blockDim.x);
        if (index < int(size)) f(At{index, slot});
      }
    } else {
      for (int64_t index = threadIdx.x; index < size; index += blockDim.x) f(At{index, 0});
    }
  }

  // Other roundings are a matter of instructions, not of a mode: sum_rounded_down() has one.
  static constexpr bool downward = false;
  template <class F> __device__ __forceinline__ void each_downward(int64_t size, const F& f) const { each(size, f); }

  template <int K, class F> __device__ __forceinline__ Terms<double, K> sum(int64_t size, const F& f) const {
    Terms<double, K> sums{};
    each(size, [&](At at) {
      const auto found = f(at);
      for (int k = 0; k < K; ++k) sums.of[k] += double(found.of[k]);
    });
    return together(sums, [](double a, double b) { return a + b; }, 0.0);
  }

  template <class T> static constexpr double product_rounding() { return 0; }
  template <class D, class V>
  __device__ __forceinline__ Terms<double, 3> products(int64_t size, const D& d, const V& v) const {
    return sum<3>(size, [&](At at) {
      const double far = d(at), along = v(at);
      return Terms<double, 3>{{along * along, far * along, far * far}};
    });
  }

  template <int K, class F> __device__ __forceinline__ auto most(int64_t size, const F& f) const {
    using T = std::remove_cvref_t<decltype(f(At{}).of[0])>;
    constexpr T lowest = -FloatBits<T>::kLargest;
    Terms<T, K> tops;
    for (int k = 0; k < K; ++k) tops.of[k] = lowest;
    each(size, [&](At at) {
      const auto found = f(at);
      for (int k = 0; k < K; ++k) tops.of[k] = found.of[k] > tops.of[k] ? found.of[k] : tops.of[k];
    });
    return together(tops, [](T a, T b) { return b > a ? b : a; }, lowest);
  }

  template <class S> __device__ __forceinline__ static auto read(const S* from, int64_t i) {
    return widened(read_one(from + i));
  }
  template <class S, class T> __device__ __forceinline__ static void write(S* to, int64_t i, T value) {
    if constexpr (sizeof(S) == 2) {
      const T pair[2] = {value, value};
      write_one(to + i, rounded<S, 2>(pair).of[0]);
    } else {
      write_one(to + i, S(value));
    }
  }
  __device__ __forceinline__ static bool leader() { return threadIdx.x == 0; }
  __device__ __forceinline__ static void sync() { __syncthreads(); }

 private:
  // Combines what the threads have, always in the same order: over the lanes of a warp, then over the warps.
  template <class T, int K, class Combine>
  __device__ __forceinline__ static Terms<T, K> together(Terms<T, K> mine, const Combine& combine, T none) {
    __shared__ T parts[K][kWarp];
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
    mine = across_warp(mine, combine);
    __syncthreads();  // the parts of the last time have been read
    if (lane == 0) {
      for (int k = 0; k < K; ++k) parts[k][warp] = mine.of[k];
    }
    __syncthreads();
    for (int k = 0; k < K; ++k) mine.of[k] = lane < warps ? parts[k][lane] : none;
    return across_warp(mine, combine);
  }
  template <class T, int K, class Combine>
  __device__ __forceinline__ static Terms<T, K> across_warp(Terms<T, K> mine, const Combine& combine) {
    for (int bit = kWarp / 2; bit > 0; bit /= 2) {
      for (int k = 0; k < K; ++k) mine.of[k] = combine(mine.of[k], __shfl_xor_sync(0xffffffffu, mine.of[k], bit));
    }
    return mine;
  }

  char* room_;
};

// How a sample of `size` elements is worked on.
struct TeamShape {
  int threads;
  bool in_registers;
};
template <class T> constexpr TeamShape team_for(int64_t size) {
  const int64_t threads = divided_up(size, kWarp) * kWarp;
  return {int(std::clamp<int64_t>(threads, kWarp, kMostThreads)), size <= int64_t(kSlots<T>) * kMostThreads};
}

}  // namespace sat_kernels::cuda
