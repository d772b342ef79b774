// What the operators of every device need to know about tensors.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <vector>

#include "elementwise.h"

namespace sat_kernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::Double: return DType::float64;
    case ScalarType::BFloat16: return DType::bfloat16;
    case ScalarType::Half: return DType::float16;
    default: break;
  }
  STD_TORCH_CHECK(false, "sat_kernels: expected a float32, float64, bfloat16 or float16 tensor");
  return DType::count;
}

// The type that the kernels compute in.
inline ScalarType opmath_of(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline bool same_layout(const Tensor& a, const Tensor& b) {
  const auto sizes = a.sizes(), a_strides = a.strides(), b_strides = b.strides();
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1 && a_strides[d] != b_strides[d]) return false;
  }
  return true;
}

// Whether the elements fill a stretch of memory, each place once, in whatever order of dimensions.
inline bool is_dense(const Tensor& t) {
  if (t.is_contiguous() || t.numel() == 0) return true;
  std::vector<std::array<int64_t, 2>> dims;  // (stride, size)
  for (size_t d = 0; d < t.sizes().size(); ++d) {
    if (t.sizes()[d] != 1) dims.push_back({t.strides()[d], t.sizes()[d]});
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// A dense tensor on the device of `reference`, `order` being its dimensions, the one with the smallest stride last.
// torch::stable::new_empty() takes three times as long, 3 us.
template <size_t N>
Tensor empty_in_order(const Tensor& reference, const std::array<int64_t, N>& sizes, const std::array<size_t, N>& order,
                      ScalarType dtype) {
  std::array<int64_t, N> strides;
  int64_t stride = 1;
  for (size_t k = N; k-- > 0; stride *= std::max<int64_t>(1, sizes[order[k]])) strides[order[k]] = stride;
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(reference.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(reference.get(), &device_index));
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(N, sizes.data(), strides.data(), to<int32_t>(from(dtype)),
                                                         device_type, device_index, &handle));
  return Tensor(handle);
}
template <size_t N>
Tensor contiguous_empty(const Tensor& reference, const int64_t (&sizes)[N], ScalarType dtype) {
  std::array<size_t, N> order;
  for (size_t d = 0; d < N; ++d) order[d] = d;
  return empty_in_order(reference, std::to_array(sizes), order, dtype);
}

// Room for a tensor of another number type in the layout of `reference`, which is dense.
inline Tensor empty_like(const Tensor& reference, ScalarType dtype) {
  using torch::stable::detail::from;
  std::array<StableIValue, 6> stack{from(reference),    from(std::optional(dtype)), from(std::nullopt),
                                    from(std::nullopt), from(std::nullopt),         from(std::nullopt)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::empty_like", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// `t` itself if it has the layout of `reference`, which is dense, and the number type; else a copy that does.
inline Tensor laid_out_as(const Tensor& reference, const Tensor& t, ScalarType dtype) {
  if (same_layout(reference, t) && t.scalar_type() == dtype) return t;
  Tensor copy = empty_like(reference, dtype);
  return torch::stable::copy_(copy, t);
}
inline Tensor laid_out_as(const Tensor& reference, const Tensor& t) {
  return laid_out_as(reference, t, t.scalar_type());
}

inline Tensor dense(const Tensor& t) {
  if (is_dense(t)) return t;
  Tensor copy = torch::stable::empty_like(t);
  return torch::stable::copy_(copy, t);
}

inline void check_like(const char* name, const Tensor& t, const char* reference_name, const Tensor& reference) {
  STD_TORCH_CHECK(t.sizes().size() == reference.sizes().size() &&
                      std::equal(t.sizes().begin(), t.sizes().end(), reference.sizes().begin()),
                  name, " differs in shape from ", reference_name, ": expected the same");
  STD_TORCH_CHECK(t.device() == reference.device(), name, " is on another device than ", reference_name,
                  ": expected the same");
}

}  // namespace sat_kernels
