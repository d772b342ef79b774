// The number types of tensors, and their way to and from the type that is computed in. Branch-free, for the
// CPU's vectoriser.
#pragma once

#include <type_traits>

#include "elementwise.h"
#include "formulas/number.h"

namespace sat_kernels {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

template <class S> struct OpmathOf {
  using Type = S;
};
template <> struct OpmathOf<BFloat16> {
  using Type = float;
};
template <> struct OpmathOf<Half> {
  using Type = float;
};
template <class S> using Opmath = typename OpmathOf<S>::Type;

SK_FN float load(float x) { return x; }
SK_FN double load(double x) { return x; }
SK_FN float load(BFloat16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
SK_FN float load(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  // Float's exponent bias is larger by 112; the product also normalises denormals.
  const uint32_t scaled = bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f);
  return bit_cast<float>(sign | (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : scaled));
}

template <class S> SK_FN S store(Opmath<S> x);
template <> SK_FN float store<float>(float x) { return x; }
template <> SK_FN double store<double>(double x) { return x; }
template <> SK_FN BFloat16 store<BFloat16>(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {uint16_t(x == x ? rounded : 0x7fc0u)};
}
template <> SK_FN Half store<Half>(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  // Half's least unit is 2^-24, float's at 0.5 too: there the addition rounds denormal results.
  const uint32_t denormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  uint32_t half = magnitude < 0x38800000u ? denormal : normal;
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;
  half = x == x ? half : 0x7e00u;
  return {uint16_t(sign | half)};
}

// Calls f with a null pointer to the number type of `dtype`.
template <class F> decltype(auto) with_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::float64: return f(static_cast<double*>(nullptr));
    case DType::bfloat16: return f(static_cast<BFloat16*>(nullptr));
    case DType::float16: return f(static_cast<Half*>(nullptr));
    default: return f(static_cast<float*>(nullptr));
  }
}

}  // namespace sat_kernels
