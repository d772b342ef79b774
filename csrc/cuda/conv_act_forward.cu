#include "conv_act.cuh"
#include "conv_act.h"

namespace sat_kernels::cuda {
namespace {

// What every launch has without asking for more.
constexpr int kSharedBytes = 48 << 10;

struct ForwardPlan {
  ConvPlan conv;
  int high, wide, across, tiles;  // of outputs; tiles in a row of them, and in a sample
  bool packed;                    // y and z take neighbouring filters together
};

// Blocks have a tile of outputs of one sample, all filters of it.
template <int C> __global__ void __launch_bounds__(kConvThreads, 2)
    conv_forward_tiles(const ConvForward job, const AnyActivation<float> f, const ForwardPlan plan) {
  SK_DYNAMIC_SHARED(memory);
  float4 *pixels = reinterpret_cast<float4*>(memory),
         *weights = reinterpret_cast<float4*>(memory + plan.conv.pixel_bytes);
  const ConvGeometry& size = job.layer.size;
  const int64_t sample = blockIdx.x / plan.tiles;
  const int tile = int(blockIdx.x % plan.tiles), row = tile / plan.across;
  Region region{row * plan.high, (tile - row * plan.across) * plan.wide, plan.high, plan.wide};
  region.high = std::min(region.high, int(size.out_height) - region.y);
  region.wide = std::min(region.wide, int(size.out_width) - region.x);
  stage_pixels(job.layer, plan.conv, region, job.x, sample, pixels);
  for (int first = 0; first < size.filters; first += plan.conv.chunk) {
    __syncthreads();
    stage_weights(job.layer, plan.conv, first, weights);
    __syncthreads();
    const auto work = [&]<int P, int Q>(const Item<P, Q>& item) {
      const int taps = int(size.kernel_height * size.kernel_width);
      float z[P * Q];
      convolve<C>(job.layer, plan.conv, region, item, pixels, weights + (item.first - first) * taps, z);
      each_part<P>(z, [&](int j) {
        if (!item.has_output(j)) return;
        float in[Q], out[Q];
#pragma unroll
        for (int q = 0; q < Q; ++q) in[q] = z[q];
        f.values(in, out, [&](int q) { return item.filter_at(q); });
        const Place place(region, item.output_at(j));
        store_filters(job.y, region, sample, place, item, plan.packed, out);
        if (job.z.at != nullptr) store_filters(job.z, region, sample, place, item, plan.packed, in);
      });
    };
    if (plan.conv.narrow) {
      each_item<1, 1>(plan.conv, region.size(), first, size.filters, work);
    } else {
      each_item<kOutputs, kFilters>(plan.conv, region.size(), first, size.filters, work);
    }
  }
}

// Tiles of 512 outputs, or as many as there is room for.
ForwardPlan plan_for(const ConvForward& job) {
  const ConvGeometry& size = job.layer.size;
  ForwardPlan plan;
  plan.high = int(std::min<int64_t>(size.out_height, 16));
  plan.wide = int(std::min<int64_t>(size.out_width, 32));
  while (true) {
    plan.conv = plan_of(size, plan.high, plan.wide, true, kSharedBytes);
    if (plan.conv.pixel_bytes + plan.conv.weight_bytes <= kSharedBytes || plan.high * plan.wide == 1) break;
    int& longer = plan.wide >= plan.high ? plan.wide : plan.high;
    longer = (longer + 1) / 2;
  }
  plan.across = int(divided_up(size.out_width, plan.wide));
  plan.tiles = plan.across * int(divided_up(size.out_height, plan.high));
  plan.packed = takes_filters<kFilters>(job.y) && takes_filters<kFilters>(job.z);
  return plan;
}

}  // namespace

void conv_forward(const ConvForward& job, cudaStream_t stream) {
  const ConvGeometry& size = job.layer.size;
  if (size.samples * size.filters * size.out_height * size.out_width == 0) return;
  const ForwardPlan plan = plan_for(job);
  const auto run = [&](auto kernel) {
    launch(kernel, dim3(unsigned(size.samples * plan.tiles)), kConvThreads,
           plan.conv.pixel_bytes + plan.conv.weight_bytes, stream, job, AnyActivation<float>(job.layer.f), plan);
  };
  size.channels == kMostImageChannels ? run(conv_forward_tiles<4>) : run(conv_forward_tiles<3>);
}

}  // namespace sat_kernels::cuda
