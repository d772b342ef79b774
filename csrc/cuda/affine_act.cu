// What follows a convolution: bias, residual, affine map and activation, or their gradient, at one access per thread.
#include "affine_act.h"

#include "any_activation.cuh"
#include "options.cuh"

namespace sat_kernels::cuda {
namespace {

// How a thread finds the numbers of its elements' channels.
enum class Lookup {
  none,     // nothing depends on channels
  rows,     // rows are at least as long as an access, which lies in one channel or two
  columns,  // channels are neighbours, and an access to them is one to their numbers, too
  each,     // element for element
};

// A job, and what divides an element's index.
template <class S> struct Affine {
  static constexpr int N = kPerAccess<S>;
  AffineAct job;
  AnyActivation<Number<S>> f;
  Divisor inner, channels;
  Lookup lookup = Lookup::each;
  bool wide;  // indices have more than 32 bits
  bool packed;

  explicit Affine(const AffineAct& job)
      : job(job), f(job.f), inner(job.inner), channels(job.channels), wide(job.size >= int64_t(1) << 32) {
    const auto fits = [](const void* p) { return takes_packs<N>(static_cast<const S*>(p)); };
    packed = fits(job.grad) && fits(job.grad_sum) && fits(job.sum) && fits(job.residual) && fits(job.out);
    const auto aligned = [](const void* p) { return takes_packs<kAccess>(static_cast<const char*>(p)); };
    if (!job.bias && !job.scale && !job.shift && !f.per_channel) {
      lookup = Lookup::none;
    } else if (packed && job.inner >= N) {
      lookup = Lookup::rows;
    } else if (packed && job.inner == 1 && job.channels % N == 0 && aligned(job.bias) && aligned(job.scale) &&
               aligned(job.shift)) {
      lookup = Lookup::columns;
    }
  }

  // Of element i; `left`: of the elements from it on, how many are in its row, at most N. A 64-bit division is a
  // subroutine.
  __device__ __forceinline__ uint32_t channel(int64_t i, int* left = nullptr) const {
    if (wide) {
      const int64_t row = i / job.inner;
      if (left != nullptr) *left = int(std::min<int64_t>((row + 1) * job.inner - i, N));
      return uint32_t(row % job.channels);
    }
    const uint32_t row = inner.quotient(uint32_t(i));
    if (left != nullptr) *left = int(std::min<uint32_t>((row + 1) * inner.by - uint32_t(i), N));
    return row - channels.quotient(row) * channels.by;
  }
};

// The channels of a thread's elements. Also elements behind the end have one.
template <class S> class Channels {
 public:
  static constexpr int N = kPerAccess<S>;
  using E = Exact<S>;

  __device__ __forceinline__ Channels(const Affine<S>& all, const Slice<N>& slice) : all_(all), slice_(slice) {
    if (all.lookup != Lookup::rows && all.lookup != Lookup::columns) return;
    first_ = second_ = all.channel(slice.first, &left_);
    if (left_ < N && ++second_ == all.channels.by) second_ = 0;
  }

  __device__ __forceinline__ uint32_t operator()(int j) const {
    if (all_.lookup == Lookup::rows) return j < left_ ? first_ : second_;
    return all_.lookup == Lookup::columns ? first_ + j : all_.channel(slice_.index(j));
  }

  // of[k][channel] for each element; where there is none, what values[k] are.
  template <int K> __device__ __forceinline__ void numbers(const void* const (&of)[K], E (&values)[K][N]) const {
    const auto each = [&](const auto& use) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (of[k] != nullptr) use(static_cast<const E*>(of[k]), k);
      }
    };
    if (all_.lookup == Lookup::rows) {
      E first[K], second[K];
      for (int k = 0; k < K; ++k) first[k] = second[k] = values[k][0];
      each([&](const E* from, int k) {
        first[k] = read_one(from + first_);
        second[k] = read_one(from + second_);
      });
      for (int k = 0; k < K; ++k) {
        for (int j = 0; j < N; ++j) values[k][j] = j < left_ ? first[k] : second[k];
      }
    } else if (all_.lookup == Lookup::columns) {
      each([&](const E* from, int k) {
        const auto pack = read<Pack<E, N>>(from + first_);
        for (int j = 0; j < N; ++j) values[k][j] = pack.of[j];
      });
    } else if (all_.lookup == Lookup::each) {
      for (int j = 0; j < N; ++j) {
        const uint32_t channel = all_.channel(slice_.index(j));
        each([&](const E* from, int k) { values[k][j] = read_one(from + channel); });
      }
    }
  }

 private:
  const Affine<S>& all_;
  const Slice<N>& slice_;
  uint32_t first_ = 0, second_ = 0;
  int left_ = 0;
};

// The elements of several tensors, 0 where there is none. As words of 4 bytes: as numbers they would be taken apart at
// once, and each load would wait for the one before.
template <class S, int N, int K>
__device__ __forceinline__ void load(const Slice<N>& slice, const void* const (&of)[K], uint4 (&words)[K]) {
  if (slice.whole) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      words[k] = {};
      if (of[k] != nullptr) words[k] = read<uint4>(static_cast<const S*>(of[k]) + slice.first);
    }
  } else {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      Pack<S, N> pack{};
      for (int j = 0; j < N; ++j) {
        if (of[k] != nullptr && slice.has(j)) pack.of[j] = read_one(static_cast<const S*>(of[k]) + slice.index(j));
      }
      words[k] = bit_cast<uint4>(pack);
    }
  }
}
template <class S, int N, class E> __device__ __forceinline__ void widen(const uint4& words, E (&values)[N]) {
  const auto pack = bit_cast<Pack<S, N>>(words);
  for (int j = 0; j < N; ++j) values[j] = widened(pack.of[j]);
}

// At least eight blocks per multiprocessor: 64 registers.
template <class S, Pass P> __global__ void __launch_bounds__(kThreads, 8) affine_act_pass(const Affine<S> all) {
  constexpr int N = kPerAccess<S>;
  using T = Number<S>;
  using E = Exact<S>;
  const AffineAct& job = all.job;
  const Slice<N> slice(int64_t(blockIdx.x) * (kThreads * N), job.size, threadIdx.x, kThreads, all.packed);
  if (slice.first >= job.size) return;
  constexpr bool forward = P == Pass::forward;
  const void* const inputs[] = {job.sum, forward ? job.residual : job.grad_sum, job.grad};
  uint4 loaded[3];
  load<S>(slice, inputs, loaded);
  const Channels<S> channels(all, slice);
  const void* const per_channel[] = {job.scale, job.shift, job.bias};
  E numbers[3][N], sum[N], addend[N];
  for (int j = 0; j < N; ++j) {
    numbers[0][j] = E(1);
    // Which, unlike 0, leaves -0 as it is.
    numbers[1][j] = numbers[2][j] = E(-0.0);
  }
  channels.numbers(per_channel, numbers);
  widen<S>(loaded[0], sum);
  widen<S>(loaded[1], addend);
  if (forward && (job.bias != nullptr || job.residual != nullptr)) {
    for (int j = 0; j < N; ++j) sum[j] = sum[j] + numbers[2][j] + addend[j];
    slice.store(static_cast<S*>(job.sum), sum);
    // As it is stored.
    const auto stored = rounded<S, N>(sum);
    for (int j = 0; j < N; ++j) sum[j] = widened(stored.of[j]);
  }
  T z[N], y[N];
  for (int j = 0; j < N; ++j) z[j] = T(numbers[0][j] * sum[j] + numbers[1][j]);
  if constexpr (forward) {
    all.f.values(z, y, channels);
    for (int j = 0; j < N; ++j) sum[j] = E(y[j]);
  } else {
    all.f.derivatives(z, y, channels);
    E grad[N];
    widen<S>(loaded[2], grad);
    for (int j = 0; j < N; ++j) sum[j] = E(y[j]) * grad[j] * numbers[0][j] + addend[j];
  }
  slice.store(static_cast<S*>(job.out), sum);
}

template <class S> void run(Pass pass, const AffineAct& job, cudaStream_t stream) {
  const auto run_pass = [&](auto kernel) {
    launch(kernel, dim3(unsigned(divided_up(job.size, kThreads * kPerAccess<S>))), kThreads, stream, Affine<S>(job));
  };
  pass == Pass::forward ? run_pass(affine_act_pass<S, Pass::forward>) : run_pass(affine_act_pass<S, Pass::backward>);
}

}  // namespace

void affine_act(Pass pass, const AffineAct& job, DType s, cudaStream_t stream) {
  switch (s) {
    case DType::float64: return run<double>(pass, job, stream);
    case DType::bfloat16: return run<__nv_bfloat16>(pass, job, stream);
    case DType::float16: return run<__half>(pass, job, stream);
    default: return run<float>(pass, job, stream);
  }
}

}  // namespace sat_kernels::cuda
