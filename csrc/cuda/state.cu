// The state of attacks: a block for each sample.
#include "state.h"

#include "../formulas/state.h"
#include "team.cuh"

namespace sat_kernels::cuda {
namespace {

// Any type is read and written as it is.
struct CopyingTeam : Team<0> {
  __device__ __forceinline__ CopyingTeam() : Team<0>(nullptr) {}
  template <class S> __device__ __forceinline__ static S get(const S* from, int64_t i) { return read_one(from + i); }
  template <class S> __device__ __forceinline__ static void put(S* to, int64_t i, S value) { write_one(to + i, value); }
};

template <class T> __global__ void __launch_bounds__(kMostThreads) keep(KeepBest job) {
  for (int64_t sample = blockIdx.x; sample < job.samples; sample += gridDim.x) keep_best<T>(CopyingTeam(), job, sample);
}

template <class T, class G> __global__ void __launch_bounds__(kMostThreads) update(ApgdUpdate job) {
  for (int64_t sample = blockIdx.x; sample < job.samples; sample += gridDim.x) {
    apgd_update<T, G>(CopyingTeam(), job, sample);
  }
}

template <class Job> void run(void (*kernel)(Job), const Job& job, cudaStream_t stream) {
  const dim3 grid(unsigned(std::min<int64_t>(job.samples, 1 << 20)));
  launch(kernel, grid, team_for<float>(job.sample_size).threads, stream, job);
}

template <class T> void run_update(const ApgdUpdate& job, DType grad, cudaStream_t stream) {
  switch (grad) {
    case DType::float64: return run(update<T, uint64_t>, job, stream);
    case DType::float32: return run(update<T, uint32_t>, job, stream);
    default: return run(update<T, uint16_t>, job, stream);
  }
}

}  // namespace

void run_keep_best(const KeepBest& job, DType type, cudaStream_t stream) {
  type == DType::float64 ? run(keep<double>, job, stream) : run(keep<float>, job, stream);
}

void run_apgd_update(const ApgdUpdate& job, DType type, DType grad, cudaStream_t stream) {
  type == DType::float64 ? run_update<double>(job, grad, stream) : run_update<float>(job, grad, stream);
}

}  // namespace sat_kernels::cuda
