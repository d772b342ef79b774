// What a step may be given beside tensors and numbers: sizes per sample and channel, a mask, the network's input.
#pragma once

#include "../formulas/perturbation.h"
#include "../steps.h"
#include "launch.cuh"

namespace sat_kernels::cuda {

// Quotients of 32-bit numbers by one that is known to the host: a product instead of 20 instructions (Granlund and
// Montgomery's, with 33 bits: n / d = (n (2^32 + factor)) >> (32 + shift)).
struct Divisor {
  uint32_t by, factor, shift;
  explicit Divisor(int64_t d) : by(uint32_t(std::min<int64_t>(d, 0xffffffff))), shift(0) {
    while ((uint64_t(1) << shift) < by) ++shift;
    factor = uint32_t(((uint64_t(1) << shift) - by) * (uint64_t(1) << 32) / by + 1);
  }
  __device__ __forceinline__ uint32_t quotient(uint32_t n) const {
    const uint64_t high = (uint64_t(n) * factor) >> 32;
    return uint32_t((high + n) >> shift);
  }
};

// A job, and what divides an element's index: a sample has less than 2^32 of them where that matters.
struct OptionsJob {
  AttackStep step;
  Divisor inner, channels;
  bool packs_out;  // the network's input is in x_adv's order, and may be written as x_adv is
  OptionsJob(const AttackStep& job, bool packs_out)
      : step(job), inner(job.inner), channels(job.channels), packs_out(packs_out) {}
};

// A sample's part of a job.
template <class T> class Options {
 public:
  __device__ __forceinline__ Options(const OptionsJob& job, int64_t sample) : all_(job), job_(job.step), sample_(sample) {
    base_ = {number(job_.alpha), number(job_.eps), T(job_.lowest), T(job_.highest)};
  }

  __device__ __forceinline__ static bool skips(const AttackStep& job, int64_t sample) {
    return job.active != nullptr && !read_one(job.active + sample);
  }

  // The sizes at element `i` of the sample.
  __device__ __forceinline__ LinfStep<T> at(int64_t i) const {
    LinfStep<T> step = base_;
    if (job_.alpha.per_channel != 0) step.alpha = of(job_.alpha, channel(i));
    if (job_.eps.per_channel != 0) step.eps = of(job_.eps, channel(i));
    return step;
  }

  // (value - mean) / std at element `i` of the sample.
  __device__ __forceinline__ float normalised(T value, int64_t i) const {
    float result = float(value);
    if (job_.out.mean != nullptr) result -= read_one(job_.out.mean + channel(i));
    if (job_.out.deviation != nullptr) result /= read_one(job_.out.deviation + channel(i));
    return result;
  }

  // Calls f with a pointer to the network's input.
  template <class F> __device__ __forceinline__ void with_out(const F& f) const {
    switch (job_.out.dtype) {
      case DType::bfloat16: return f(static_cast<__nv_bfloat16*>(job_.out.to));
      case DType::float16: return f(static_cast<__half*>(job_.out.to));
      default: return f(static_cast<float*>(job_.out.to));
    }
  }

  // Puts a number to where element `i` of the sample is in the network's input.
  __device__ __forceinline__ void write_out(float value, int64_t i) const {
    const uint32_t row = all_.inner.quotient(uint32_t(i)), outer = all_.channels.quotient(row);
    const int64_t place = int64_t(outer) * job_.inner + (i - int64_t(row) * job_.inner);
    const int64_t at = sample_ * job_.out.per_sample + (row - outer * all_.channels.by) * job_.out.per_channel +
                       place * job_.out.per_place;
    const float pair[2] = {value, 0};
    with_out([&](auto* to) { write_one(to + at, rounded<std::remove_reference_t<decltype(*to)>, 2>(pair).of[0]); });
  }

 private:
  __device__ __forceinline__ T of(const Size& size, int64_t channel) const {
    return read_one(static_cast<const T*>(size.of) + sample_ * size.per_sample + channel * size.per_channel);
  }
  __device__ __forceinline__ T number(const Size& size) const { return size.of == nullptr ? T(size.number) : of(size, 0); }

  __device__ __forceinline__ uint32_t channel(int64_t i) const {
    const uint32_t row = all_.inner.quotient(uint32_t(i));
    return row - all_.channels.quotient(row) * all_.channels.by;
  }

  const OptionsJob& all_;
  const AttackStep& job_;
  int64_t sample_;
  LinfStep<T> base_;
};

}  // namespace sat_kernels::cuda
