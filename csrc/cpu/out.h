// What depends on an element's channel: sizes of steps, and the network's input.
#pragma once

#include "../steps.h"
#include "../storage.h"
#include "channels.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

// Of so many elements, numbers that depend on the channel are kept at a time.
constexpr int64_t kSpread = 512;

// of(channel) for each of the elements [begin, begin + size).
template <class T, class Job, class Of>
SK_FN void spread_channels(const Job& job, int64_t begin, int64_t size, T* to, const Of& of) {
  visit_channels(job, begin, size, [&](int64_t offset, int64_t channel, int64_t n) {
    if (job.inner == 1) {
      for (int64_t i = 0; i < n; ++i) to[offset + i] = of(channel + i);
    } else {
      const T number = of(channel);
      for (int64_t i = 0; i < n; ++i) to[offset + i] = number;
    }
  });
}

// The size at each of the elements [begin, begin + size), which are in one sample.
template <class T, class Job>
SK_FN void spread(const Job& job, const Size& size, int64_t sample, int64_t begin, int64_t n, T* to) {
  const T* of = static_cast<const T*>(size.of);
  if (of == nullptr || size.per_channel == 0) {
    const T number = of == nullptr ? T(size.number) : of[sample * size.per_sample];
    for (int64_t i = 0; i < n; ++i) to[i] = number;
  } else {
    spread_channels(job, begin, n, to, [&](int64_t c) { return of[sample * size.per_sample + c * size.per_channel]; });
  }
}

// Writes the network's input (x_adv - mean) / std.
class Out {
 public:
  explicit Out(const AttackStep& job) : job_(job), out_(job.out), in_order_(out_in_order(job)) {}

  // For the elements [begin, begin + size) of x_adv, which are in `sample`.
  template <class T> void write(const T* x_adv, int64_t sample, int64_t begin, int64_t size) {
    if (out_.to == nullptr) return;
    switch (out_.dtype) {
      case DType::bfloat16: return write_as<BFloat16>(x_adv, sample, begin, size);
      case DType::float16: return write_as<Half>(x_adv, sample, begin, size);
      default: return write_as<float>(x_adv, sample, begin, size);
    }
  }

 private:
  template <class S, class T> void write_as(const T* x_adv, int64_t sample, int64_t begin, int64_t size) {
    S* to = static_cast<S*>(out_.to);
    S buffer[kSpread];
    for (int64_t start = begin; start < begin + size; start += kSpread) {
      const int64_t n = begin + size - start < kSpread ? begin + size - start : kSpread;
      // Where channels are neighbours, the pattern begins anew with each of them.
      const int64_t channel = start / job_.inner % job_.channels;
      if (job_.inner != 1 || channel != channel_ || n > spread_) {
        spread_channels(job_, start, n, mean_, [&](int64_t c) { return out_.mean ? out_.mean[c] : 0.f; });
        spread_channels(job_, start, n, deviation_, [&](int64_t c) { return out_.deviation ? out_.deviation[c] : 1.f; });
        channel_ = channel;
        spread_ = n;
      }
      S* straight = in_order_ ? to + start : buffer;
      SK_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) straight[i] = store<S>((float(x_adv[start + i]) - mean_[i]) / deviation_[i]);
      if (!in_order_) scatter(buffer, to + sample * out_.per_sample, start - sample * job_.sample_size, n);
    }
  }

  // `first`: the first element's index in the sample.
  template <class S> void scatter(const S* from, S* to, int64_t first, int64_t size) const {
    const int64_t channels = job_.channels;
    if (job_.inner == 1 && first % channels == 0 && size % channels == 0) {
      to += first / channels * out_.per_place;
      for (int64_t c = 0; c < channels; ++c) {
        S* at = to + c * out_.per_channel;
        for (int64_t i = 0; i < size / channels; ++i) at[i * out_.per_place] = from[i * channels + c];
      }
      return;
    }
    visit_channels(job_, first, size, [&](int64_t offset, int64_t channel, int64_t n) {
      const int64_t i = first + offset, place = i / (job_.inner * job_.channels) * job_.inner + i % job_.inner;
      S* at = to + channel * out_.per_channel + place * out_.per_place;
      const int64_t step = job_.inner == 1 ? out_.per_channel : out_.per_place;
      for (int64_t j = 0; j < n; ++j) at[j * step] = from[offset + j];
    });
  }

  const AttackStep& job_;
  const NetworkInput& out_;
  const bool in_order_;
  int64_t channel_ = -1, spread_ = 0;
  float mean_[kSpread], deviation_[kSpread];
};

}  // namespace sat_kernels::cpu::SK_TARGET
