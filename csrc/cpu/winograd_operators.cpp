// Convolutions by Winograd's algorithm, on the CPU.
#include "../samples.h"
#include "../winograd.h"

#include "attacks.h"
#include "dispatch.h"

namespace sat_kernels::cpu {
namespace {

// Weights of more bytes than these do not stay in a shared cache, and are read as seldom as possible: each panel for many
// tiles, whose transformed inputs are these bytes at most. Otherwise a core has tiles of its own, as many as leave room in
// its cache for weights and products.
constexpr int64_t kLargeWeights = int64_t(4) << 20, kSharedBytes = int64_t(8) << 20, kOwnBytes = int64_t(512) << 10;
// A place's matrix begins this many floats after the end of the one before: else all of a tile's places might compete for the
// same lines of a cache.
constexpr int64_t kApart = 16;

// Of the calling thread, kept for its next convolution: fresh memory for each would cost more than some of them.
template <int which> float* room(int64_t floats) {
  thread_local std::vector<float> kept;
  if (int64_t(kept.size()) < floats) kept.resize(floats);
  return kept.data();
}

// `out`, one number for each of 36 places of each filter and channel, is what winograd_conv2d takes, of the same instruction set.
void winograd_weight_(Tensor out, Tensor weight, bool turned) {
  const WinogradKernels& k = attack_kernels().winograd;
  const auto sizes = weight.sizes(), strides = weight.strides();
  const DType dtype = dtype_of(weight);
  STD_TORCH_CHECK(dtype == DType::float32 || dtype == DType::bfloat16, "weight: expected float32 or bfloat16");
  STD_TORCH_CHECK(sizes.size() == 4 && sizes[2] == 3 && sizes[3] == 3 && strides[0] == 9 * sizes[1] && strides[1] == 1 &&
                      strides[2] == 3 * sizes[1] && strides[3] == sizes[1],
                  "weight: expected (filters, channels, 3, 3) in channels_last memory");
  STD_TORCH_CHECK(sizes[0] % k.panel == 0 && sizes[1] % k.panel == 0,
                  "weight: expected numbers of filters and channels that are multiples of ", k.panel);
  STD_TORCH_CHECK(out.scalar_type() == ScalarType::Float && out.is_contiguous() &&
                      out.numel() == kPlaces * sizes[0] * sizes[1],
                  "out: expected a contiguous float32 tensor with 36 numbers for each filter and channel");
  const WinogradFilters job{weight.const_data_ptr(), sizes[turned ? 1 : 0], sizes[turned ? 0 : 1], turned};
  float* weights = static_cast<float*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, job.filters / k.panel, 1, [&](int64_t begin, int64_t end) {
    k.weight[int(dtype)](job, begin, end, weights);
  });
}

// `x` is (samples, channels, height, width) in channels_last, and so is the result.
Tensor winograd_conv2d(Tensor x, Tensor weight, OptionalTensor bias, int64_t padding_y, int64_t padding_x) {
  const WinogradKernels& k = attack_kernels().winograd;
  const DType dtype = dtype_of(x);
  STD_TORCH_CHECK(dtype == DType::float32 || dtype == DType::bfloat16, "x: expected float32 or bfloat16");
  STD_TORCH_CHECK(x.sizes().size() == 4, "x: expected (samples, channels, height, width)");
  const auto sizes = x.sizes(), strides = x.strides();
  const int64_t samples = sizes[0], channels = sizes[1], height = sizes[2], width = sizes[3];
  const int64_t steps[] = {height * width * channels, 1, width * channels, channels};
  for (int d = 0; d < 4; ++d) {
    STD_TORCH_CHECK(sizes[d] == 1 || strides[d] == steps[d], "x: expected channels_last memory");
  }
  STD_TORCH_CHECK(channels > 0 && channels % k.panel == 0, "x: expected a number of channels that is a multiple of ", k.panel);
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float && weight.is_contiguous() &&
                      weight.numel() % (kPlaces * channels * k.panel) == 0,
                  "weight: expected what winograd_weight_ wrote, of as many channels as x");
  Winograd job{};
  job.samples = samples;
  job.channels = channels;
  job.filters = weight.numel() / (kPlaces * channels);
  job.height = height;
  job.width = width;
  job.padding_y = padding_y;
  job.padding_x = padding_x;
  job.out_height = height + 2 * padding_y - 2;
  job.out_width = width + 2 * padding_x - 2;
  STD_TORCH_CHECK(padding_y >= 0 && padding_x >= 0 && job.out_height > 0 && job.out_width > 0,
                  "padding: expected numbers >= 0, and x at least as large as a filter with them");
  if (bias) {
    STD_TORCH_CHECK(bias->scalar_type() == ScalarType::Float && bias->is_contiguous() && bias->numel() == job.filters,
                    "bias: expected a contiguous float32 tensor with one number for each filter");
    job.bias = static_cast<const float*>(bias->const_data_ptr());
  }
  Tensor out = empty_in_order(x, std::array<int64_t, 4>{samples, job.filters, job.out_height, job.out_width},
                              std::array<size_t, 4>{0, 2, 3, 1}, x.scalar_type());
  if (out.numel() == 0) return out;
  job.x = x.const_data_ptr();
  job.weight = static_cast<const float*>(weight.const_data_ptr());
  job.out = out.mutable_data_ptr();

  const int64_t tiles = job.tiles(), panels = job.filters / k.panel, of_tile = kPlaces * channels * 4;
  const auto to_inputs = k.inputs[int(dtype)];
  const auto to_outputs = k.outputs[int(dtype)];
  // So many tiles that every group of those that are multiplied together is whole.
  const int64_t own = std::clamp(kOwnBytes / of_tile / k.together * k.together, k.together, k.at_once);
  const int64_t parts = (tiles + own - 1) / own;
  if (weight.numel() * 4 <= kLargeWeights && parts >= int64_t(torch::stable::get_num_threads())) {
    torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      const int64_t step = own * channels + kApart;
      float *inputs = room<0>(kPlaces * step), *products = room<1>(kPlaces * k.at_once * k.panel);
      for (int64_t part = begin; part < end; ++part) {
        const int64_t first = part * own, count = std::min(own, tiles - first);
        to_inputs(job, first, 0, count, inputs, step);
        for (int64_t panel = 0; panel < panels; ++panel) {
          to_outputs(job, first, 0, count, panel, inputs, step, products);
        }
      }
    });
    return out;
  }
  const int64_t block = std::min(tiles, std::max<int64_t>(1, kSharedBytes / (of_tile * k.at_once)) * k.at_once);
  const int64_t step = (block + k.together) * channels + kApart;  // the last ones may be multiplied with what follows
  float* inputs = room<0>(kPlaces * step);
  for (int64_t first = 0; first < tiles; first += block) {
    const int64_t count = std::min(block, tiles - first), parts = (count + k.at_once - 1) / k.at_once;
    torch::stable::parallel_for(0, count, 4, [&](int64_t begin, int64_t end) {
      to_inputs(job, first, begin, end, inputs, step);
    });
    torch::stable::parallel_for(0, panels * parts, 1, [&](int64_t begin, int64_t end) {
      float* products = room<1>(kPlaces * k.at_once * k.panel);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t panel = task / parts, start = task % parts * k.at_once;
        to_outputs(job, first, start, std::min(k.at_once, count - start), panel, inputs, step, products);
      }
    });
  }
  return out;
}

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  m.impl("winograd_weight_", TORCH_BOX(&sat_kernels::cpu::winograd_weight_));
  m.impl("winograd_conv2d", TORCH_BOX(&sat_kernels::cpu::winograd_conv2d));
}
