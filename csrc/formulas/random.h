// Random numbers that are a function of a key and a counter: the same for any thread, batch, layout or device.
#pragma once

#include "logarithm.h"
#include "perturbation.h"

namespace sat_kernels {

// Whose numbers they are. restart: its lower 32 bits count.
struct RandomKey {
  int64_t seed, sample, restart;
};

struct RandomWords {
  uint32_t of[4];
};

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
SK_FN RandomWords philox(RandomWords c, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t(c.of[0]) * 0xD2511F53u, b = uint64_t(c.of[2]) * 0xCD9E8D57u;
    c = {{uint32_t(b >> 32) ^ c.of[1] ^ k0, uint32_t(b), uint32_t(a >> 32) ^ c.of[3] ^ k1, uint32_t(a)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// The words of the elements 4 block to 4 block + 3 of a sample, in its logical order, (C, H, W).
SK_FN RandomWords random_words(RandomKey key, uint32_t block) {
  const uint64_t seed = uint64_t(key.seed), sample = uint64_t(key.sample);
  return philox({{block, uint32_t(key.restart), uint32_t(sample), uint32_t(sample >> 32)}}, uint32_t(seed),
                uint32_t(seed >> 32));
}

SK_FN uint32_t random_word(RandomKey key, uint32_t element) {
  const RandomWords w = random_words(key, element / 4);
  const uint32_t low = (element & 1) != 0 ? w.of[1] : w.of[0], high = (element & 1) != 0 ? w.of[3] : w.of[2];
  return (element & 2) != 0 ? high : low;
}

// One number of (0, 1) for the whole sample, from a block that samples of fewer than 2^32 elements have no use for.
SK_FN double sample_fraction(RandomKey key) {
  return (2.0 * double(random_words(key, 0xFFFFFFFFu).of[0] >> 8) + 1.0) * 0x1p-25;
}

// Uniform in (-1, 1): odd multiples of 2^-24, so that it is symmetric, exact in float, and never 0 or +-1.
SK_FN float symmetric_uniform(uint32_t word) {
  return float(int32_t(2 * (word >> 8)) - 0xFFFFFF) * 0x1p-24f;
}

// The standard normal number at which the distribution of |z| has reached |u|, with u's sign: at most 5.42. Polynomials
// in w = -log(1 - u^2), as M. Giles, "Approximating the erfinv function" (2012); coefficients: coefficients.py.
SK_FN float normal_of(float u) {
  const float a = absolute(u);
  const Logarithm<float> l = split_log_one_plus(quotient(a * a, (1.0f - a) * (1.0f + a)));
  const float w = l.multiple + (2.0f * l.s + l.rest), r = square_root(w);
  const float central =
      polynomial(w - 2.5f, 2.12331322449210196f, 0.348803642319227358f, -0.00590612187687531774f, -0.00177431682434359742f,
                 0.000307359568404450508f, -5.79007480303364625e-6f, -4.50551980154310962e-6f, 4.46372868725232997e-7f);
  const float tail = polynomial(r - 3.0f, 4.00643523682708599f, 1.41658387959078284f, 0.0133151545432314051f,
                                -0.010824597453000481f, 0.00832446126849773485f, -0.0050400356308781916f,
                                0.00148222276519863857f);
  return u * (w < 5.0f ? central : tail);
}

// The same of the exponential distribution, -log(1 - |u|) with u's sign: Laplace's.
SK_FN float laplace_of(float u) {
  const float a = absolute(u);
  const Logarithm<float> l = split_log_one_plus(quotient(a, 1.0f - a));
  return flip_sign(l.multiple + (2.0f * l.s + l.rest), u);
}

}  // namespace sat_kernels
