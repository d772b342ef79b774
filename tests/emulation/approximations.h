// The GPU's special functions, as inaccurate as the PTX manual allows: each result is the exact one moved by an
// amount that depends on a hash of the input's bits, for half of the inputs by all that is allowed.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace sat_kernels::emulator {

// 0: by the hash; 1 or -1: all results too large, or too small, by all that is allowed.
inline int error_direction = 0;

inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

// `exact`, moved by at most `bound`, which is half a unit in the last place or more.
inline float approximation(float x, double exact, double bound) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  for (int round = 0; round < 2; ++round) bits = (bits ^ (bits >> 16)) * 0x45d9f3bu;
  bits ^= bits >> 16;
  const double part = bits % 4 == 0 ? 1 : bits % 4 == 1 ? -1 : std::ldexp(double(int32_t(bits)), -31);
  const double moved = exact + bound * (error_direction != 0 ? error_direction : part);
  const float result = float(moved);
  return flushed(std::abs(result - exact) > bound ? std::nextafter(result, float(exact)) : result);
}

inline float ex2_approx_ftz(float x) {
  x = flushed(x);
  if (x == 0 || std::isnan(x)) return x + 1;
  if (x >= 128) return INFINITY;
  const double exact = std::exp2(double(x));
  return x < -150 ? 0.0f : approximation(x, exact, exact * 0x1p-22);
}

inline float rcp_approx_ftz(float x) {
  x = flushed(x);
  if (x == 0 || std::isinf(x) || std::isnan(x)) return 1 / x;
  const double exact = 1 / double(x);
  return approximation(x, exact, std::ldexp(1.0, std::ilogb(exact) - 23));
}

inline float sqrt_approx_ftz(float x) {
  x = flushed(x);
  if (x == 0 || !(x < INFINITY) || x < 0) return std::sqrt(x);
  const double exact = std::sqrt(double(x));
  return approximation(x, exact, exact * 0x1p-23);
}

inline float lg2_approx_ftz(float x) {
  x = flushed(x);
  if (x == 0 || !(x < INFINITY) || x < 0) return std::log2(std::fabs(x) == 0 ? 0.0f : x);
  const double exact = std::log2(double(x));
  return approximation(x, exact, x > 0.5f && x < 2 ? 0x1p-22 : std::abs(exact) * 0x1p-22);
}

}  // namespace sat_kernels::emulator
