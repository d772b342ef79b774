// Random starts, apart from where they run.
//
// `Device` runs kernels over dense memory:
//   void start(const Tensor& x_adv, const RandomStart&)
#pragma once

#include <optional>

#include "starts.h"
#include "tensors.h"

namespace sat_kernels {

using MaybeTensor = std::optional<Tensor>;

// The channels that are next to each other in dense `t`, or 1 where samples are as in their logical order, or 0 for
// any other layout.
inline int64_t adjacent_channels(const Tensor& t) {
  if (t.is_contiguous()) return 1;
  const auto sizes = t.sizes(), strides = t.strides();
  if (sizes.size() < 3) return 0;
  int64_t expected = sizes[1];
  for (size_t d = sizes.size() - 1; d >= 2; --d) {
    if (sizes[d] != 1 && strides[d] != expected) return 0;
    expected *= sizes[d];
  }
  const bool apart = sizes[0] == 1 || strides[0] == expected, adjacent = sizes[1] == 1 || strides[1] == 1;
  return apart && adjacent ? sizes[1] : 0;
}

inline Size start_size(const char* name, double number, const MaybeTensor& of, const Tensor& x) {
  if (!of) return {number, nullptr, 0, 0};
  STD_TORCH_CHECK((of->numel() == 1 || of->numel() == x.sizes()[0]) && of->is_contiguous() &&
                      of->scalar_type() == x.scalar_type() && of->device() == x.device(),
                  name, ": expected one number, or one per sample, contiguous, in x's dtype, on its device");
  return {number, of->const_data_ptr(), of->numel() == 1 ? 0 : 1, 0};
}

inline const int64_t* integers(const char* name, const MaybeTensor& of, int64_t count, const Tensor& x) {
  if (!of) return nullptr;
  STD_TORCH_CHECK(of->numel() == count && of->is_contiguous() && of->scalar_type() == ScalarType::Long &&
                      of->device() == x.device(),
                  name, ": expected ", count, " contiguous int64 numbers on x's device");
  return static_cast<const int64_t*>(of->const_data_ptr());
}

template <class Device>
Tensor random_start(Tensor x, int64_t noise, int64_t radius, int64_t norm, double scale, double eps,
                    MaybeTensor scale_of, MaybeTensor eps_of, double clip_min, double clip_max, int64_t seed,
                    MaybeTensor seed_of, int64_t restart, MaybeTensor restart_of, MaybeTensor sample_ids) {
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double,
                  "x: expected float32 or float64");
  STD_TORCH_CHECK(x.sizes().size() > 0, "x: expected (B, ...)");
  STD_TORCH_CHECK(noise >= 0 && noise < 4 && radius >= 0 && radius < 5 && norm >= 0 && norm < 3,
                  "noise, radius, norm: expected numbers of csrc/starts.h");
  Tensor result = torch::stable::empty_like(x);
  if (x.numel() == 0) return result;
  RandomStart job{};
  job.samples = x.sizes()[0];
  job.sample_size = x.numel() / job.samples;
  STD_TORCH_CHECK(job.sample_size < int64_t(1) << 32, "x: expected samples of fewer than 2^32 elements");
  job.noise = Noise(noise);
  job.radius = Radius(radius);
  job.norm = Norm(norm);
  job.scale = start_size("scale", scale, scale_of, x);
  job.eps = start_size("eps", eps, eps_of, x);
  job.lowest = clip_min;
  job.highest = clip_max;
  job.seed = seed;
  job.restart = restart;
  job.seed_of = integers("seed", seed_of, 1, x);
  job.restart_of = integers("restart", restart_of, 1, x);
  job.sample_ids = integers("sample_ids", sample_ids, job.samples, x);
  const int64_t channels = is_dense(result) ? adjacent_channels(result) : 0;
  job.channels = channels == 0 ? 1 : channels;
  const Tensor x_adv = channels == 0 ? torch::stable::contiguous(result) : result, clean = laid_out_as(x_adv, x);
  job.x = clean.const_data_ptr();
  job.x_adv = x_adv.mutable_data_ptr();
  Device::start(x_adv, job);
  if (x_adv.get() != result.get()) torch::stable::copy_(result, x_adv);
  return result;
}

// The registrations for one device.
template <class Device, class Library> void register_start_operators(Library& m) {
  m.impl("random_start", TORCH_BOX((&random_start<Device>)));
}

}  // namespace sat_kernels
