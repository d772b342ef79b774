// Random starts. Noise is computed where it is needed, a second time if need be: nothing but x and x_adv is in memory.
#include "starts.h"

#include "../formulas/starts.h"
#include "team.cuh"

namespace sat_kernels::cuda {
namespace {

// All blocks of a sample.
struct Everyone {
  template <class F> __device__ __forceinline__ void each(int64_t size, const F& f) const {
    const int64_t stride = int64_t(gridDim.x) * blockDim.x;
    for (int64_t index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; index < size; index += stride) f(At{index, 0});
  }
};

template <class T> __global__ void __launch_bounds__(kMostThreads) start(RandomStart job) {
  const uint32_t channels = uint32_t(job.channels), inner = uint32_t(job.sample_size / job.channels);
  for (int64_t sample = blockIdx.y; sample < job.samples; sample += gridDim.y) {
    const RandomKey key{job.seed_of == nullptr ? job.seed : read_one(job.seed_of),
                        job.sample_ids == nullptr ? sample : read_one(job.sample_ids + sample),
                        job.restart_of == nullptr ? job.restart : read_one(job.restart_of)};
    const int64_t first = sample * job.sample_size;
    const auto size_of = [=](const Size& size) {
      return size.of == nullptr ? T(size.number) : read_one(static_cast<const T*>(size.of) + sample * size.per_sample);
    };
    const SampleStart<T> s{static_cast<const T*>(job.x) + first, static_cast<T*>(job.x_adv) + first,
                           job.sample_size, job.radius, job.norm, size_of(job.scale), size_of(job.eps),
                           T(job.lowest), T(job.highest), key};
    random_start(Team<0>(nullptr), Everyone(), s, [=](At at) {
      const uint32_t index = uint32_t(at.index);
      const uint32_t element = channels == 1 ? index : index % channels * inner + index / channels;
      return noise_of(job.noise, random_word(key, element));
    });
  }
}

}  // namespace

void run_start(const RandomStart& job, DType type, cudaStream_t stream) {
  // Lengths are sums over a sample, by one block; else there are as many as there is work for.
  const bool length = job.radius != Radius::free && (job.norm != Norm::linf || job.radius != Radius::bounded);
  const int threads = length ? team_for<float>(job.sample_size).threads : kThreads;
  const int64_t blocks = length ? 1 : std::min(divided_up(job.sample_size, threads), kBlocks);
  const dim3 grid(unsigned(blocks), unsigned(std::min<int64_t>(job.samples, 65535)));
  if (type == DType::float64) {
    launch(start<double>, grid, threads, stream, job);
  } else {
    launch(start<float>, grid, threads, stream, job);
  }
}

}  // namespace sat_kernels::cuda
