// What a step is asked to do, on every device.
#pragma once

#include "elementwise.h"

namespace sat_kernels {

// A radius or step size: `number`, or, if `of` is not null, of[sample * per_sample + channel * per_channel], numbers of
// x's dtype.
struct Size {
  double number;
  const void* of;
  int64_t per_sample, per_channel;  // 0 or their strides
};

template <class T> SK_FN T size_of(const Size& size, int64_t sample) {
  return size.of == nullptr ? T(size.number) : static_cast<const T*>(size.of)[sample * size.per_sample];
}

// The network's input, written beside x_adv: (x_adv - mean) / std, rounded once. Null: not asked for.
struct NetworkInput {
  void* to;
  DType dtype;                                  // float32, bfloat16 or float16
  int64_t per_sample, per_channel, per_place;   // strides; element i of a sample is in channel i / inner % channels
  const float* mean;                            // one per channel, on the device; null: 0 and 1
  const float* deviation;
};

// x_adv, x, grad, mask and what else there is for each element: dense and in one layout, `sample_size` consecutive
// elements for each sample. Element i of a sample belongs to channel i / inner % channels.
struct AttackStep {
  void* x_adv;
  const void* grad;  // null: no step, only the projection
  const void* x;
  int64_t samples, sample_size, channels, inner;
  Size eps, alpha;
  double lowest, highest;
  const bool* mask;    // null, or where the step may go
  const bool* active;  // null, or the samples that are stepped; others are left alone
  NetworkInput out;
  void* momentum;      // MI-FGSM
  double decay;
  void* x_prev;        // APGD
  bool first;          // APGD's first step has no momentum
  Size top_k;          // L1: how many elements a sparse step moves; a number, or int64 numbers
  bool skip_faces;     // L1: not those that the box would keep from moving
};

// Whether the network's input lies in memory as x_adv does, element for element.
inline bool out_in_order(const AttackStep& job) {
  const NetworkInput& out = job.out;
  const int64_t places = job.sample_size / job.channels;
  return (job.channels == 1 || out.per_channel == job.inner) &&
         (places == 1 || out.per_place == (job.inner == 1 ? job.channels : 1)) &&
         (job.inner == 1 || job.inner == places) && (job.samples == 1 || out.per_sample == job.sample_size);
}

// Whether there is nothing but tensors and numbers.
inline bool is_plain(const AttackStep& job) {
  return job.grad && !job.eps.of && !job.alpha.of && !job.mask && !job.active && !job.out.to;
}

}  // namespace sat_kernels
