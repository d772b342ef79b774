// The first layer's convolution in shared memory: what its forward pass and its steps have in common.
//
// Pixels and weights are held as 4 channels. A thread adds up z of 4 outputs and 8 filters, 24 loads of 16 bytes of shared
// memory for 96 to 128 products of each tap; or of one, where outputs are few.
#pragma once

#include "../conv_act.h"
#include "latent.cuh"

// Shared memory of the size that a launch asks for.
#ifdef SK_EMULATED
#define SK_DYNAMIC_SHARED(name) char* name = ::sat_kernels::emulator::dynamic_shared_memory()
#else
#define SK_DYNAMIC_SHARED(name) extern __shared__ __align__(16) char name[]
#endif

namespace sat_kernels::cuda {

#ifndef SK_EMULATED
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, int threads, int shared_bytes, cudaStream_t stream, const A&... arguments) {
  if (shared_bytes > 48 << 10) {
    cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  }
  kernel<<<grid, threads, shared_bytes, stream>>>(P(arguments)...);
}
#endif

constexpr int kConvThreads = 256;
// Outputs and filters of a thread.
constexpr int kOutputs = 4, kFilters = 8;

// Of outputs: those from `y`, `x` on.
struct Region {
  int y, x, high, wide;
  __host__ __device__ int size() const { return high * wide; }
};

// How shared memory is used for a region of at most so many outputs, `chunk` filters at a time.
struct ConvPlan {
  int pitch;  // of the pixels' rows
  int step;   // from an output's first pixel to the next one's. Odd: else the pixels of a warp share banks
  int chunk;
  bool narrow;  // a thread has one output and filter
  int pixel_bytes, weight_bytes;
};

constexpr int rounded_up(int n, int to) { return int(divided_up(n, to)) * to; }

inline ConvPlan plan_of(const ConvGeometry& size, int high, int wide, bool convolves, int shared_bytes) {
  ConvPlan plan{};
  const int stride = int(size.stride), taps = int(size.kernel_height * size.kernel_width), outputs = high * wide;
  const int rows = (high - 1) * stride + int(size.kernel_height), columns = (wide - 1) * stride + int(size.kernel_width);
  plan.step = stride | 1;
  plan.pitch = columns + (columns / stride) * (plan.step - stride);
  plan.pixel_bytes = convolves && outputs > 0 ? rows * plan.pitch * 16 : 0;
  // Work for every thread; and weights of no more than a fifth of what there is.
  const int filters = int(size.filters), most = std::max(1, shared_bytes / 5 / (16 * taps));
  const int wanted = kFilters * int(divided_up(kConvThreads, std::max<int64_t>(1, divided_up(outputs, kOutputs))));
  const int whole = std::min(most / kFilters * kFilters, std::min(wanted, rounded_up(filters, kFilters)));
  plan.narrow = whole == 0 || whole / kFilters * outputs < kConvThreads / 4 * kOutputs;
  plan.chunk = plan.narrow ? std::min({filters, most, std::max(1, kConvThreads / std::max(1, outputs))}) : whole;
  plan.weight_bytes = plan.chunk * taps * 16;
  return plan;
}

// x - mean around a region, with its padding.
__device__ __forceinline__ void stage_pixels(const ConvAct& layer, const ConvPlan& plan, const Region& region,
                                             const Images& x, int64_t sample, float4* pixels) {
  const ConvGeometry& size = layer.size;
  const int stride = int(size.stride), channels = int(size.channels);
  const int rows = (region.high - 1) * stride + int(size.kernel_height);
  const int columns = (region.wide - 1) * stride + int(size.kernel_width);
  const float* image = static_cast<const float*>(x.at) + sample * x.sample;
  for (int i = threadIdx.x; i < rows * columns; i += kConvThreads) {
    const int row = i / columns, column = i - row * columns;
    const int y = region.y * stride - int(size.padding) + row, at_x = region.x * stride - int(size.padding) + column;
    float found[kMostImageChannels] = {};
    if (y >= 0 && y < size.height && at_x >= 0 && at_x < size.width) {
#pragma unroll
      for (int c = 0; c < kMostImageChannels; ++c) {
        if (c >= channels) break;
        found[c] = read_one(image + c * x.channel + y * x.row + at_x * x.column);
        if (layer.mean != nullptr) found[c] -= read_one(layer.mean + c);
      }
    }
    pixels[row * plan.pitch + column + column / stride * (plan.step - stride)] = {found[0], found[1], found[2], found[3]};
  }
}

// Those of a chunk of filters from `first` on; 0 for filters that there are not.
__device__ __forceinline__ void stage_weights(const ConvAct& layer, const ConvPlan& plan, int first, float4* weights) {
  const ConvGeometry& size = layer.size;
  const int taps = int(size.kernel_height * size.kernel_width), channels = int(size.channels);
  for (int i = threadIdx.x; i < plan.chunk * taps; i += kConvThreads) {
    const int filter = i / taps, tap = i - filter * taps;
    float found[kMostImageChannels] = {};
    if (first + filter < size.filters) {
      const float* from = layer.weight + int64_t(first + filter) * channels * taps + tap;
#pragma unroll
      for (int c = 0; c < kMostImageChannels; ++c) {
        if (c < channels) found[c] = read_one(from + c * taps);
      }
    }
    weights[i] = {found[0], found[1], found[2], found[3]};
  }
}

// What a thread works on: P outputs, every `apart`-th of a region, and Q filters, of which `first` is the first.
template <int P, int Q> struct Item {
  int output, apart, outputs, first, filters;
  __device__ __forceinline__ Item(int i, int apart, int outputs, int begin, int64_t filters)
      : output(i % apart), apart(apart), outputs(outputs), first(begin + i / apart * Q), filters(int(filters)) {}
  // The k-th Q filters of another one.
  template <int R>
  __device__ __forceinline__ Item(const Item<P, R>& other, int k)
      : output(other.output), apart(other.apart), outputs(other.outputs), first(other.first + k * Q), filters(other.filters) {}
  __device__ __forceinline__ bool has_output(int j) const { return output + j * apart < outputs; }
  __device__ __forceinline__ bool has_filter(int q) const { return first + q < filters; }
  // Below what there is.
  __device__ __forceinline__ int output_at(int j) const { return has_output(j) ? output + j * apart : outputs - 1; }
  __device__ __forceinline__ int filter_at(int q) const { return has_filter(q) ? first + q : filters - 1; }
};

// Calls use(item) for all that the thread does of a chunk of filters.
template <int P, int Q, class Use>
__device__ __forceinline__ void each_item(const ConvPlan& plan, int outputs, int first, int64_t filters, const Use& use) {
  const int apart = (outputs + P - 1) / P;
  for (int i = threadIdx.x; i < apart * (plan.chunk / Q); i += kConvThreads) {
    const Item<P, Q> item(i, apart, outputs, first, filters);
    if (item.first < filters) use(item);
  }
}

// z[j * Q + q] of an item.
template <int C, int P, int Q>
__device__ __forceinline__ void convolve(const ConvAct& layer, const ConvPlan& plan, const Region& region,
                                         const Item<P, Q>& item, const float4* pixels, const float4* weights,
                                         float (&z)[P * Q]) {
  const ConvGeometry& size = layer.size;
  const int stride = int(size.stride), width = int(size.kernel_width), taps = width * int(size.kernel_height);
  int at[P];
#pragma unroll
  for (int j = 0; j < P; ++j) {
    const int output = item.output_at(j), row = output / region.wide;
    at[j] = row * stride * plan.pitch + (output - row * region.wide) * plan.step;
#pragma unroll
    for (int q = 0; q < Q; ++q) z[j * Q + q] = 0;
  }
  for (int y = 0, tap = 0; y < int(size.kernel_height); ++y) {
    for (int x = 0, column = y * plan.pitch, left = stride; x < width; ++x, ++tap, ++column) {
      if (left-- == 0) {
        column += plan.step - stride;
        left = stride - 1;
      }
      float4 pixel[P];
#pragma unroll
      for (int j = 0; j < P; ++j) pixel[j] = pixels[at[j] + column];
#pragma unroll
      for (int q = 0; q < Q; ++q) {
        const float4 w = weights[q * taps + tap];
#pragma unroll
        for (int j = 0; j < P; ++j) {
          float& sum = z[j * Q + q];
          sum += pixel[j].x * w.x;
          sum += pixel[j].y * w.y;
          sum += pixel[j].z * w.z;
          if constexpr (C == 4) sum += pixel[j].w * w.w;
        }
      }
    }
  }
  if (layer.bias == nullptr) return;
#pragma unroll
  for (int q = 0; q < Q; ++q) {
    const float bias = read_one(layer.bias + item.filter_at(q));
#pragma unroll
    for (int j = 0; j < P; ++j) z[j * Q + q] += bias;
  }
}

// Calls use(k) for each of K parts of `values`, which is then its beginning, one after the other in the same code: with k a
// constant, an activation would be compiled K times.
template <int K, int Size, class Use> __device__ __forceinline__ void each_part(float (&values)[Size], const Use& use) {
#pragma unroll 1
  for (int k = 0; k < K; ++k) {
    use(k);
#pragma unroll
    for (int i = 0; i + Size / K < Size; ++i) values[i] = values[i + Size / K];
  }
}

// Where an output is in a region.
struct Place {
  int y, x;
  __device__ __forceinline__ Place(const Region& region, int output)
      : y(output / region.wide), x(output - output / region.wide * region.wide) {}
};

// An element of the item's filters at an output.
template <class S, int P, int Q>
__device__ __forceinline__ S* element(const Images& images, const Region& region, int64_t sample, Place place,
                                      const Item<P, Q>& item) {
  return static_cast<S*>(images.at) + sample * images.sample + (region.y + place.y) * images.row +
         (region.x + place.x) * images.column + item.first * images.channel;
}

// What there is at `first` for an item's filters, and 0 for others.
template <class S, int P, int Q>
__device__ __forceinline__ void load_filters(const S* first, int64_t channel, const Item<P, Q>& item, bool packed,
                                             S (&values)[Q]) {
  if (Q > 1 && packed && item.has_filter(Q - 1)) {
    constexpr int each = std::min(Q, kAccess / int(sizeof(S)));
#pragma unroll
    for (int q = 0; q < Q; q += each) {
      const auto pack = read<Pack<S, each>>(first + q);
#pragma unroll
      for (int k = 0; k < each; ++k) values[q + k] = pack.of[k];
    }
  } else {
#pragma unroll
    for (int q = 0; q < Q; ++q) values[q] = item.has_filter(q) ? read_one(first + q * channel) : S{};
  }
}

template <int P, int Q>
__device__ __forceinline__ void store_filters(const Images& to, const Region& region, int64_t sample, Place place,
                                              const Item<P, Q>& item, bool packed, const float (&values)[Q]) {
  with_storage<float>(to.dtype, [&]<class S>(S*) {
    S* first = element<S>(to, region, sample, place, item);
    float pairs[Q == 1 ? 2 : Q] = {};  // rounded() takes pairs
#pragma unroll
    for (int q = 0; q < Q; ++q) pairs[q] = values[q];
    const auto pack = rounded<S>(pairs);
    constexpr int each = std::min(Q, kAccess / int(sizeof(S)));
    if (Q > 1 && packed && item.has_filter(Q - 1)) {
#pragma unroll
      for (int q = 0; q < Q; q += each) {
        Pack<S, each> part;
#pragma unroll
        for (int k = 0; k < each; ++k) part.of[k] = pack.of[q + k];
        if constexpr (Q > 1) write_whole(first + q, part);
      }
    } else {
#pragma unroll
      for (int q = 0; q < Q; ++q) {
        if (item.has_filter(q)) write_one(first + q * to.channel, pack.of[q]);
      }
    }
  });
}

// Whether Q filters at an output may be read or written together.
template <int Q> bool takes_filters(const Images& images) {
  if (images.at == nullptr) return true;
  const int item = images.dtype == DType::float32 ? 4 : 2, bytes = std::min(Q * item, kAccess);
  const auto whole = [&](int64_t n) { return n * item % bytes == 0; };
  return images.channel == 1 && whole(images.sample) && whole(images.row) && whole(images.column) &&
         reinterpret_cast<uintptr_t>(images.at) % bytes == 0;
}

}  // namespace sat_kernels::cuda
