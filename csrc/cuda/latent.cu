#include "latent.h"

#include "../formulas/latent.h"
#include "latent.cuh"
#include "team.cuh"

namespace sat_kernels::cuda {
namespace {

template <class T, int N>
__device__ __forceinline__ void load(const Slice<N>& slice, const void* from, DType s, T (&values)[N]) {
  with_storage<T>(s, [&]<class S>(S*) { slice.load(static_cast<const S*>(from), values); });
}
template <class T, int N>
__device__ __forceinline__ void store(const Slice<N>& slice, void* to, DType s, const T (&values)[N]) {
  with_storage<T>(s, [&]<class S>(S*) {
    if (slice.whole) {
      write_whole(static_cast<S*>(to) + slice.first, rounded<S, N>(values));
    } else {
      slice.store(static_cast<S*>(to), values);
    }
  });
}

// The Linf step of an element of a sample.
template <class T>
__device__ __forceinline__ T stepped(const Latent<T>& all, int64_t sample, uint32_t channel, T delta, T g, T z) {
  const LatentJob& job = all.job;
  const auto size = [&](const Size& s) { return size_at<T>(s, sample, channel); };
  const T moved = latent_linf_step(delta, g, size(job.alpha), size(job.eps));
  return all.bounded ? within_bounds(moved, z, size(job.lo), size(job.hi)) : moved;
}

// At least eight blocks per multiprocessor, or six: which is at most 64 registers, or 80.
template <class T, LatentPass P>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 6 : 8) latent_pass(const Latent<T> all, bool packed) {
  constexpr int N = kPerAccess<T>;
  const LatentJob& job = all.job;
  T* delta = static_cast<T*>(job.delta);
  for (int64_t sample = blockIdx.y; sample < job.samples; sample += gridDim.y) {
    const int64_t begin = sample * job.sample_size;
    const Slice<N> slice(begin + int64_t(blockIdx.x) * (kThreads * N), begin + job.sample_size, threadIdx.x, kThreads,
                         packed);
    const auto channel = [&](int j) { return slice.has(j) ? all.channel(slice.index(j) - begin) : 0; };
    T z[N], d[N], x[N], g[N], y[N];
    load(slice, job.z, all.s, z);
    slice.load(delta, d);
    if constexpr (P != LatentPass::forward) load(slice, job.grad, all.s, g);
    for (int j = 0; j < N; ++j) x[j] = z[j] + d[j];
    if constexpr (P == LatentPass::forward) {
      all.f.values(x, y, channel);
    } else {
      all.f.derivatives(x, y, channel);
      for (int j = 0; j < N; ++j) y[j] *= g[j];
    }
    if (P != LatentPass::linf || job.out != nullptr) store(slice, job.out, all.s, y);
    if constexpr (P == LatentPass::linf) {
#pragma unroll
      for (int j = 0; j < N; ++j) d[j] = stepped(all, sample, channel(j), d[j], y[j], z[j]);
      slice.store(delta, d);
    }
  }
}

// In double, the formulas need more than the 64 registers that each of 1,024 threads has.
template <class T> constexpr int kL2Threads = sizeof(T) == 8 ? kMostThreads / 2 : kMostThreads;

// A block of threads for each sample. grad f'(z + delta) is computed anew in each pass, not written.
template <class T> __global__ void __launch_bounds__(kL2Threads<T>, 1) latent_l2(const Latent<T> all) {
  const LatentJob& job = all.job;
  const int64_t sample = blockIdx.x, size = job.sample_size, begin = sample * size;
  using Team = cuda::Team<0>;
  const Team team(nullptr);
  T* delta = static_cast<T*>(job.delta) + begin;
  const auto element = [&](const void* of, int64_t i) {
    T value;
    with_storage<T>(all.s, [&]<class S>(S*) { value = T(Team::read(static_cast<const S*>(of) + begin, i)); });
    return value;
  };
  struct Gradient {
    decltype(element) read;
    const Latent<T>& all;
    const T* delta;
    __device__ __forceinline__ static constexpr bool exists() { return true; }
    __device__ __forceinline__ T operator()(int64_t i) const {
      const T x[1] = {read(all.job.z, i) + read_one(delta + i)};
      T slope[1];
      all.f.derivatives(x, slope, [&](int) { return all.channel(i); });
      return read(all.job.grad, i) * slope[0];
    }
  };
  const Gradient gradient{element, all, delta};
  const T alpha = size_at<T>(job.alpha, sample, 0), eps = size_at<T>(job.eps, sample, 0);
  latent_l2_step(team, delta, gradient, size, alpha, eps, [&](T moved, int64_t i) {
    if (job.out != nullptr) {  // delta has not been written yet
      with_storage<T>(all.s, [&]<class S>(S*) { Team::write(static_cast<S*>(job.out) + begin, i, gradient(i)); });
    }
    if (!all.bounded) return moved;
    const uint32_t channel = all.channel(i);
    return within_bounds(moved, element(job.z, i), size_at<T>(job.lo, sample, channel),
                         size_at<T>(job.hi, sample, channel));
  });
}

template <class T> void run(LatentPass pass, LatentJob job, DType s, cudaStream_t stream) {
  constexpr int N = kPerAccess<T>;
  if (pass == LatentPass::l2) {
    const int threads = std::min(team_for<T>(job.sample_size).threads, kL2Threads<T>);
    return launch(latent_l2<T>, dim3(unsigned(job.samples)), threads, stream, Latent<T>(job, s));
  }
  // One sample, if nothing else is the samples': then their sizes need not be multiples of N. An index has 32 bits.
  const int64_t size = job.samples * job.sample_size;
  const bool alike = (job.eps.per_sample | job.alpha.per_sample | job.lo.per_sample | job.hi.per_sample) == 0;
  if (alike && size < int64_t(1) << 32) {
    job.samples = 1;
    job.sample_size = size;
  }
  const auto fits = [&](const void* p) {
    const char* bytes = static_cast<const char*>(p);
    return s == DType::bfloat16 || s == DType::float16 ? takes_packs<kAccess / 2>(bytes) : takes_packs<kAccess>(bytes);
  };
  const bool packed = takes_packs<N>(static_cast<const T*>(job.delta)) && fits(job.grad) && fits(job.z) &&
                      fits(job.out) && (job.samples == 1 || job.sample_size % N == 0);
  const dim3 grid(unsigned(divided_up(job.sample_size, kThreads * N)), unsigned(std::min<int64_t>(job.samples, 65535)));
  const auto run_pass = [&](auto kernel) { launch(kernel, grid, kThreads, stream, Latent<T>(job, s), packed); };
  switch (pass) {
    case LatentPass::forward: return run_pass(latent_pass<T, LatentPass::forward>);
    case LatentPass::backward: return run_pass(latent_pass<T, LatentPass::backward>);
    default: return run_pass(latent_pass<T, LatentPass::linf>);
  }
}

}  // namespace

void latent(LatentPass pass, const LatentJob& job, DType s, cudaStream_t stream) {
  s == DType::float64 ? run<double>(pass, job, s, stream) : run<float>(pass, job, s, stream);
}

}  // namespace sat_kernels::cuda
