// The step of the first layer's input: its pixels' gradients are made in shared memory, a chunk of filters after the other,
// from grad f'(z), which is not written, and the step is taken at once.
#include "../formulas/perturbation.h"

#include "conv_act.h"
#include "conv_act_tiles.cuh"

namespace sat_kernels::cuda {
namespace {

// A block's memory and place.
struct Block {
  float4 *pixels, *weights;
  float *gz, *gx;
  char* kept;
  int64_t sample;
  int y, x;                // of the tile's first pixel
  int output_y, output_x;  // of the first in gz
  Region region;           // those that exist

  __device__ __forceinline__ Block(const ConvGeometry& size, const StepPlan& plan, char* memory)
      : pixels(reinterpret_cast<float4*>(memory)),
        weights(reinterpret_cast<float4*>(memory + plan.conv.pixel_bytes)),
        gz(reinterpret_cast<float*>(memory + plan.gz_at)),
        gx(reinterpret_cast<float*>(memory + plan.gx_at)),
        kept(memory + plan.kept_at),
        sample(blockIdx.x / plan.tiles) {
    const int tile = int(blockIdx.x % plan.tiles), row = tile / plan.across;
    const int stride = int(size.stride), padding = int(size.padding);
    const int high = int(size.kernel_height), wide = int(size.kernel_width);
    y = row * plan.high;
    x = (tile - row * plan.across) * plan.wide;
    output_y = first_output(y, high, stride, padding);
    output_x = first_output(x, wide, stride, padding);
    outputs_of(y, plan.high, high, stride, padding, size.out_height, region.y, region.high);
    outputs_of(x, plan.wide, wide, stride, padding, size.out_width, region.x, region.wide);
  }
};

// grad of an item's filters at an output. It stays on the chip for all updates of a launch, or of as many filters as there
// is room for: 64 float32 filters of 32 x 32 outputs are 256 KiB, of which an H100's block has 227; in 16 bits they are 128.
template <int P, int Q>
__device__ __forceinline__ void load_grad(const ConvStep& job, const StepPlan& plan, const Block& block,
                                          const Item<P, Q>& item, int output, bool first_time, float (&g)[Q]) {
  const Region& region = block.region;
  with_storage<float>(job.grad.dtype, [&]<class S>(S*) {
    S* kept = reinterpret_cast<S*>(block.kept) + item.first * region.size() + output;
    const bool keeps = item.first < plan.kept;
    S stored[Q];
    if (keeps && !first_time) {
#pragma unroll
      for (int q = 0; q < Q; ++q) stored[q] = item.has_filter(q) ? kept[q * region.size()] : S{};
    } else {
      const S* from = element<S>(job.grad, region, block.sample, Place(region, output), item);
      load_filters(from, job.grad.channel, item, plan.packed, stored);
#pragma unroll
      for (int q = 0; q < Q; ++q) {
        if (keeps && item.has_filter(q)) kept[q * region.size()] = stored[q];
      }
    }
#pragma unroll
    for (int q = 0; q < Q; ++q) g[q] = widened(stored[q]);
  });
}

// grad f'(z) of an item, into gz.
template <int C, int P, int Q>
__device__ __forceinline__ void write_gz(const ConvStep& job, const AnyActivation<float>& f, const StepPlan& plan,
                                         const Block& block, const Item<P, Q>& item, int first, bool first_time) {
  const ConvGeometry& size = job.layer.size;
  const Region& region = block.region;
  // Filters at a time: of eight, all there is takes more than the 128 registers with which a multiprocessor has two blocks.
  constexpr int N = Q < 4 ? Q : 4, parts = Q / N;
  float z[P * Q] = {}, next[N] = {};
  const auto load = [&](int k) {
    const int j = k / parts;
    const Item<P, N> part(item, k % parts);
    if (j < P && item.has_output(j)) load_grad(job, plan, block, part, item.output_at(j), first_time, next);
  };
  if (plan.convolves) {
    const int taps = int(size.kernel_height * size.kernel_width);
    convolve<C>(job.layer, plan.conv, region, item, block.pixels, block.weights + (item.first - first) * taps, z);
  }
  const int apart = plan.outputs_high * plan.gz_pitch;
  load(0);
  each_part<P * parts>(z, [&](int k) {
    float g[N], in[N], slopes[N];
#pragma unroll
    for (int q = 0; q < N; ++q) {
      g[q] = next[q];
      in[q] = z[q];
    }
    load(k + 1);  // under way while f' is computed
    const int j = k / parts;
    if (!item.has_output(j)) return;
    const Item<P, N> part(item, k % parts);
    const Place place(region, item.output_at(j));
    if (!plan.convolves) {
      with_storage<float>(job.z.dtype, [&]<class S>(S*) {
        S stored[N];
        const S* from = element<S>(job.z, region, block.sample, place, part);
        load_filters(from, job.z.channel, part, plan.packed, stored);
#pragma unroll
        for (int q = 0; q < N; ++q) in[q] = widened(stored[q]);
      });
    }
    f.derivatives(in, slopes, [&](int q) { return part.filter_at(q); });
    float* to = block.gz + (part.first - first) * apart + (region.y - block.output_y + place.y) * plan.gz_pitch +
                (region.x - block.output_x + place.x);
#pragma unroll
    for (int q = 0; q < N; ++q) {
      if (part.has_filter(q)) to[q * apart] = g[q] * slopes[q];
    }
  });
}

// sums += the terms of a row of `taps` taps, `stride` apart; gz: where the first one leads from the first pixel. The outputs
// of the next tap are those of this one but for one.
template <int C, int Taps>
__device__ __forceinline__ void add_row(float (&sums)[kPixels][C], const float* gz, const float4* weights, int taps,
                                        int stride) {
  const auto add = [&](const float(&g)[kPixels], float4 w) {
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {
      sums[j][0] += g[j] * w.x;
      sums[j][1] += g[j] * w.y;
      sums[j][2] += g[j] * w.z;
      if constexpr (C == 4) sums[j][3] += g[j] * w.w;
    }
  };
  float g[kPixels];
#pragma unroll
  for (int j = 0; j < kPixels; ++j) g[j] = gz[j];
  const auto next = [&](int tap) {
#pragma unroll
    for (int j = kPixels - 1; j > 0; --j) g[j] = g[j - 1];
    g[0] = gz[-tap];
  };
  add(g, weights[0]);
  if constexpr (Taps > 0) {
#pragma unroll
    for (int tap = 1; tap < Taps; ++tap) {
      next(tap);
      add(g, weights[tap * stride]);
    }
  } else {
    for (int tap = 1; tap < taps; ++tap) {
      next(tap);
      add(g, weights[tap * stride]);
    }
  }
}

// gx += what a chunk of `filters` leads to.
template <int C>
__device__ __forceinline__ void add_gx(const ConvGeometry& size, const StepPlan& plan, const Block& block, int filters,
                                       bool first_time) {
  const int stride = int(size.stride), width = int(size.kernel_width), height = int(size.kernel_height);
  const int in_a_row = plan.wide / kPixels, groups = in_a_row / stride, strips = plan.high * in_a_row;
  for (int strip = threadIdx.x; strip < strips; strip += kConvThreads) {
    const int row = strip / in_a_row, rest = strip - row * in_a_row, phase = rest / groups, group = rest - phase * groups;
    const int y = block.y + row + int(size.padding);
    const int x = block.x + phase + group * kPixels * stride + int(size.padding);
    const int first_x = x % stride, taps = first_x < width ? (width - 1 - first_x) / stride + 1 : 0;
    const auto place = [&](int j, int c) -> float& { return block.gx[(j * C + c) * strips + strip]; };
    float sums[kPixels][C];
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {
#pragma unroll
      for (int c = 0; c < C; ++c) sums[j][c] = first_time ? 0.0f : place(j, c);
    }
    const auto add_rows = [&]<int Taps>(std::integral_constant<int, Taps>) {
      for (int tap_y = y % stride; tap_y < height; tap_y += stride) {
        const int output_y = (y - tap_y) / stride - block.output_y, output_x = (x - first_x) / stride - block.output_x;
        const float* gz = block.gz + output_y * plan.gz_pitch + output_x;
        const float4* weights = block.weights + tap_y * width + first_x;
#pragma unroll 2
        for (int filter = 0; filter < filters; ++filter) {
          add_row<C, Taps>(sums, gz, weights, taps, stride);
          gz += plan.outputs_high * plan.gz_pitch;
          weights += height * width;
        }
      }
    };
    switch (taps) {
      case 0: break;
      case 1: add_rows(std::integral_constant<int, 1>()); break;
      case 2: add_rows(std::integral_constant<int, 2>()); break;
      case 3: add_rows(std::integral_constant<int, 3>()); break;
      case 4: add_rows(std::integral_constant<int, 4>()); break;
      default: add_rows(std::integral_constant<int, 0>());
    }
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {
#pragma unroll
      for (int c = 0; c < C; ++c) place(j, c) = sums[j][c];
    }
  }
}

template <int C>
__device__ __forceinline__ void step_pixels(const ConvStep& job, const StepPlan& plan, const Block& block,
                                            const Images& from, const Images& to) {
  const ConvGeometry& size = job.layer.size;
  const int stride = int(size.stride), wide = plan.wide, pixels = plan.high * wide;
  const int strips = pixels / kPixels, groups = wide / kPixels / stride, channels = int(size.channels);
  LinfStep<float> steps[C];
#pragma unroll
  for (int c = 0; c < C; ++c) {
    if (c >= channels) break;
    steps[c] = {size_at<float>(job.alpha, block.sample, c), size_at<float>(job.eps, block.sample, c), float(job.lowest),
                float(job.highest)};
  }
  const auto element = [&](const Images& images, int y, int x) {
    return static_cast<float*>(images.at) + block.sample * images.sample + y * images.row + x * images.column;
  };
  for (int i = threadIdx.x; i < pixels; i += kConvThreads) {
    const int row = i / wide, column = i - row * wide, y = block.y + row, x = block.x + column;
    if (y >= size.height || x >= size.width) continue;
    const int apart = column / stride, phase = column - apart * stride;
    const int group = apart / kPixels, j = apart - group * kPixels;
    const int strip = (row * stride + phase) * groups + group;
    const float *x_adv = element(from, y, x), *clean = element(job.x, y, x);
    float* moved = element(to, y, x);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      if (c >= channels) break;
      const float g = size.filters > 0 ? block.gx[(j * C + c) * strips + strip] : 0.0f;
      write_one(moved + c * to.channel, steps[c](read_one(x_adv + c * from.channel), g, read_one(clean + c * job.x.channel)));
    }
  }
}

// `updates` of a tile; more than one where it is a sample, and then `to` is `from`.
template <int C> __global__ void __launch_bounds__(kConvThreads, 2)
    conv_step_tiles(const ConvStep job, const AnyActivation<float> f, const StepPlan plan, const Images from, const Images to,
                    int64_t updates) {
  SK_DYNAMIC_SHARED(memory);
  const ConvGeometry& size = job.layer.size;
  const Block block(size, plan, memory);
  // Outputs that there are not.
  for (int i = threadIdx.x; i < plan.conv.chunk * plan.outputs_high * plan.gz_pitch; i += kConvThreads) block.gz[i] = 0;
  for (int64_t update = 0; update < updates; ++update) {
    if (plan.convolves && block.region.size() > 0) {
      stage_pixels(job.layer, plan.conv, block.region, from, block.sample, block.pixels);
    }
    for (int first = 0; first < size.filters; first += plan.conv.chunk) {
      stage_weights(job.layer, plan.conv, first, block.weights);
      __syncthreads();
      const auto work = [&](const auto& item) { write_gz<C>(job, f, plan, block, item, first, update == 0); };
      if (plan.conv.narrow) {
        each_item<1, 1>(plan.conv, block.region.size(), first, size.filters, work);
      } else {
        each_item<kOutputs, kFilters>(plan.conv, block.region.size(), first, size.filters, work);
      }
      __syncthreads();
      add_gx<C>(size, plan, block, std::min(plan.conv.chunk, int(size.filters) - first), first == 0);
      __syncthreads();
    }
    step_pixels<C>(job, plan, block, from, to);
    __syncthreads();  // the next update reads what others have moved
  }
}

__global__ void __launch_bounds__(kConvThreads)
    copy_images(const ConvGeometry size, const Images from, const Images to, int64_t pixels) {
  const int64_t i = int64_t(blockIdx.x) * kConvThreads + threadIdx.x;
  if (i >= pixels) return;
  const int64_t row = i / size.width, x = i - row * size.width, sample = row / size.height, y = row - sample * size.height;
  const auto place = [&](const Images& images, int64_t c) {
    return static_cast<float*>(images.at) + sample * images.sample + c * images.channel + y * images.row + x * images.column;
  };
  for (int64_t c = 0; c < size.channels; ++c) write_one(place(to, c), read_one(place(from, c)));
}

// Dense, in x_adv's order of channels.
Images images_in(void* room, const ConvStep& job) {
  const ConvGeometry& s = job.layer.size;
  const int64_t all = s.channels * s.height * s.width;
  if (job.x_adv.channel == 1) return {room, DType::float32, all, 1, s.width * s.channels, s.channels};
  return {room, DType::float32, all, s.height * s.width, s.width, 1};
}

bool in_place(const ConvStep& job, const StepPlan& plan) { return plan.owns || job.z.at != nullptr; }

}  // namespace

bool conv_fits(const ConvGeometry& size, int shared_bytes) {
  ConvStep job{};
  job.layer.size = size;
  return plan_parts(job, shared_bytes).bytes <= shared_bytes;
}

int64_t conv_step_room(const ConvStep& job, int shared_bytes) {
  const ConvGeometry& size = job.layer.size;
  if (in_place(job, plan_step(job, shared_bytes))) return 0;
  return size.samples * size.channels * size.height * size.width * int64_t(sizeof(float));
}

void conv_step(const ConvStep& job, void* room, int shared_bytes, cudaStream_t stream) {
  const ConvGeometry& size = job.layer.size;
  const int64_t pixels = size.samples * size.height * size.width;
  if (pixels * size.channels == 0) return;
  const StepPlan plan = plan_step(job, shared_bytes);
  const auto run = [&](const Images& from, const Images& to, int64_t updates) {
    const auto with = [&](auto kernel) {
      launch(kernel, dim3(unsigned(size.samples * plan.tiles)), kConvThreads, plan.bytes, stream, job,
             AnyActivation<float>(job.layer.f), plan, from, to, updates);
    };
    size.channels == kMostImageChannels ? with(conv_step_tiles<4>) : with(conv_step_tiles<3>);
  };
  if (in_place(job, plan)) return run(job.x_adv, job.x_adv, job.steps);
  // A tile reads its neighbours' pixels, which may not move meanwhile: from one buffer to the other. That an odd number of
  // updates ends in x_adv costs a copy, 8 bytes for each number of x_adv beside at least 12 and what grad has.
  Images from = job.x_adv, to = images_in(room, job);
  if (job.steps % 2 == 1) {
    launch(copy_images, dim3(unsigned(divided_up(pixels, kConvThreads))), kConvThreads, stream, size, from, to, pixels);
    std::swap(from, to);
  }
  for (int64_t update = 0; update < job.steps; ++update, std::swap(from, to)) run(from, to, 1);
}

}  // namespace sat_kernels::cuda
