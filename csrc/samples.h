// A batch in memory as kernels take it.
#pragma once

#include <optional>

#include "steps.h"
#include "tensors.h"

namespace sat_kernels {

using OptionalTensor = std::optional<Tensor>;

// Samples one after the other. Element i of one belongs to channel i / inner % channels.
struct SampleLayout {
  int64_t samples, sample_size, channels, inner;
};

inline int64_t samples_of(const Tensor& t) { return t.sizes().size() > 0 ? t.sizes()[0] : 1; }
inline int64_t channels_of(const Tensor& t) { return t.sizes().size() > 1 ? t.sizes()[1] : 1; }

// Of `target`, which is dense and has elements, or of a contiguous copy that takes its place where it has none.
// channels_outside: channels come before all other dimensions of a sample, or after.
inline SampleLayout lay_out_samples(Tensor& target, bool channels_outside) {
  const int64_t samples = samples_of(target), channels = channels_of(target), sample_size = target.numel() / samples;
  const bool apart = samples == 1 || target.strides()[0] == sample_size;
  const int64_t inner = channels > 1 ? target.strides()[1] : 1;
  const bool outside = inner == 1 || inner == sample_size / channels;
  if (!apart || (channels_outside && !outside)) target = torch::stable::contiguous(target);
  return {samples, sample_size, channels, channels > 1 ? target.strides()[1] : sample_size};
}

// One number for all, or (samples or 1, channels or 1) of them, on the device of a batch.
inline Size size_for(const Tensor& batch, const char* name, double number, const OptionalTensor& of, ScalarType dtype) {
  if (!of) return {number, nullptr, 0, 0};
  const auto sizes = of->sizes(), strides = of->strides();
  STD_TORCH_CHECK(sizes.size() == 2 && (sizes[0] == 1 || sizes[0] == samples_of(batch)) &&
                      (sizes[1] == 1 || sizes[1] == channels_of(batch)) && of->scalar_type() == dtype &&
                      of->device() == batch.device(),
                  name, ": expected (samples or 1, channels or 1) numbers of the right dtype on the tensors' device");
  return {0, of->const_data_ptr(), sizes[0] == 1 ? 0 : strides[0], sizes[1] == 1 ? 0 : strides[1]};
}

}  // namespace sat_kernels
