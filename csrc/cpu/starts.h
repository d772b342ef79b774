// Random starts.
#pragma once

#include "../formulas/starts.h"
#include "attacks.h"
#include "team.h"

namespace sat_kernels::cpu::SK_TARGET {

// The words of a sample's elements in the order of its memory. `room`: for twice as many, and 4 each.
SK_FN const uint32_t* words_of(RandomKey key, int64_t size, int64_t channels, void* room) {
  const int64_t blocks = (size + 3) / 4, inner = size / channels;
  uint32_t* words = static_cast<uint32_t*>(room);
  SK_INDEPENDENT
  for (int64_t block = 0; block < blocks; ++block) {
    const RandomWords found = random_words(key, uint32_t(block));
    for (int k = 0; k < 4; ++k) words[4 * block + k] = found.of[k];
  }
  if (channels == 1) return words;
  uint32_t* moved = words + 4 * blocks;
  for (int64_t place = 0; place < inner; ++place) {
    for (int64_t channel = 0; channel < channels; ++channel) moved[place * channels + channel] = words[channel * inner + place];
  }
  return moved;
}

template <class T, Noise noise> void start(const RandomStart& job, int64_t begin, int64_t end, void* room) {
  for (int64_t sample = begin; sample < end; ++sample) {
    const RandomKey key{job.seed_of == nullptr ? job.seed : *job.seed_of,
                        job.sample_ids == nullptr ? sample : job.sample_ids[sample],
                        job.restart_of == nullptr ? job.restart : *job.restart_of};
    const uint32_t* words = noise == Noise::none ? nullptr : words_of(key, job.sample_size, job.channels, room);
    const int64_t first = sample * job.sample_size;
    const SampleStart<T> s{static_cast<const T*>(job.x) + first, static_cast<T*>(job.x_adv) + first,
                           job.sample_size, job.radius, job.norm, size_of<T>(job.scale, sample),
                           size_of<T>(job.eps, sample), T(job.lowest), T(job.highest), key};
    const Team team(nullptr);
    random_start(team, team, s, [=](int64_t at) SK_INLINE_LAMBDA {
      return noise_of(noise, noise == Noise::none ? 0 : words[at]);
    });
  }
}

template <class T> void fill(StartKernel (&kernels)[4]) {
  kernels[int(Noise::none)] = &start<T, Noise::none>;
  kernels[int(Noise::uniform)] = &start<T, Noise::uniform>;
  kernels[int(Noise::normal)] = &start<T, Noise::normal>;
  kernels[int(Noise::laplace)] = &start<T, Noise::laplace>;
}

inline StartKernels start_kernels() {
  StartKernels k{};
  fill<float>(k.start[0]);
  fill<double>(k.start[1]);
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
