// How a step of the first layer's input is divided into tiles of pixels, and what of shared memory each has.
#pragma once

#include "conv_act.cuh"

namespace sat_kernels::cuda {

// Pixels of a thread: neighbours of those that are `stride` apart, which the same taps lead to.
constexpr int kPixels = 4;

struct StepPlan {
  ConvPlan conv;
  bool convolves, packed;          // z is computed; grad and z are read for neighbouring filters together
  int high, wide, across, tiles;   // of pixels; tiles in a row of them, and in a sample
  int outputs_high, outputs_wide;  // that a tile's pixels lead to, whether they exist or not
  int gz_pitch;                    // odd: four rows of every fourth output are in 32 banks
  int gz_at, gx_at, kept_at;       // in shared memory, behind the pixels and the weights
  int kept;                        // filters whose grad stays there
  int bytes;
  bool owns;                       // a tile is a sample
};

// The first output that the pixel is of, which may be one before those that exist.
__host__ __device__ inline int first_output(int pixel, int kernel, int stride, int padding) {
  const int beyond = pixel + padding - kernel + 1;
  return beyond < 0 ? -(-beyond / stride) : (beyond + stride - 1) / stride;
}
// Those of `count` outputs that pixels from `pixel` on lead to.
__device__ __forceinline__ void outputs_of(int pixel, int pixels, int kernel, int stride, int padding, int64_t count,
                                           int& first, int& size) {
  const int end = std::min((pixel + pixels - 1 + padding) / stride + 1, int(count));
  first = std::max(first_output(pixel, kernel, stride, padding), 0);
  size = std::max(end - first, 0);
}

inline StepPlan plan_tiles(const ConvStep& job, int high, int wide, int shared_bytes) {
  const ConvGeometry& size = job.layer.size;
  const int stride = int(size.stride);
  StepPlan plan{};
  plan.convolves = job.z.at == nullptr;
  plan.packed = takes_filters<kFilters>(job.grad) && takes_filters<kFilters>(job.z);
  plan.high = high;
  plan.wide = rounded_up(wide, stride * kPixels);
  plan.across = int(divided_up(size.width, plan.wide));
  plan.tiles = plan.across * int(divided_up(size.height, plan.high));
  plan.owns = plan.tiles == 1;
  plan.outputs_high = (plan.high + int(size.kernel_height) - 2) / stride + 1;
  plan.outputs_wide = (plan.wide + int(size.kernel_width) - 2) / stride + 1;
  plan.gz_pitch = plan.outputs_wide | 1;
  const int existing_high = int(std::min<int64_t>(plan.outputs_high, size.out_height));
  const int existing_wide = int(std::min<int64_t>(plan.outputs_wide, size.out_width));
  plan.conv = plan_of(size, existing_high, existing_wide, plan.convolves, shared_bytes);
  const int channels = size.channels == kMostImageChannels ? 4 : 3;
  plan.gz_at = plan.conv.pixel_bytes + plan.conv.weight_bytes;
  plan.gx_at = plan.gz_at + plan.conv.chunk * plan.outputs_high * plan.gz_pitch * 4;
  plan.kept_at = rounded_up(plan.gx_at + plan.high * plan.wide * channels * 4, 16);
  plan.bytes = plan.kept_at;
  return plan;
}

// About 32 x 32 pixels, or four outputs in a column; as many as two blocks of a multiprocessor have room for. None at all
// have room where bytes > shared_bytes.
inline StepPlan plan_parts(const ConvStep& job, int shared_bytes) {
  const ConvGeometry& size = job.layer.size;
  const int stride = int(size.stride), least = stride * kPixels;
  int high = int(std::min<int64_t>(size.height, std::max(32, 4 * stride)));
  int wide = int(std::min<int64_t>(size.width, rounded_up(32, least)));
  while (true) {
    const StepPlan plan = plan_tiles(job, high, wide, shared_bytes / 2);
    const bool smallest = high == 1 && plan.wide == least;
    if (plan.bytes <= shared_bytes / 2 || smallest) return plan;
    int& longer = high > 1 && (high >= plan.wide || plan.wide == least) ? high : wide;
    longer = (longer + 1) / 2;
  }
}

inline StepPlan plan_step(const ConvStep& job, int shared_bytes) {
  const ConvGeometry& size = job.layer.size;
  // With z there is one update, and a tile needs nothing of its neighbours.
  if (job.z.at != nullptr) return plan_parts(job, shared_bytes);
  // Of a larger sample the pixels alone take more.
  if (size.height * size.width * 16 > shared_bytes) return plan_parts(job, shared_bytes);
  StepPlan plan = plan_tiles(job, int(size.height), int(size.width), shared_bytes);
  if (plan.bytes > shared_bytes) return plan_parts(job, shared_bytes);
  const int64_t outputs = size.out_height * size.out_width;
  if (job.steps > 1 && outputs > 0) {
    const int64_t bytes = outputs * (job.grad.dtype == DType::float32 ? 4 : 2);
    plan.kept = int(std::min<int64_t>(size.filters, (shared_bytes - plan.bytes) / bytes / kFilters * kFilters));
    plan.bytes += int(plan.kept * bytes);
  }
  return plan;
}

}  // namespace sat_kernels::cuda
