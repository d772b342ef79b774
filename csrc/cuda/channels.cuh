// The passes of activations whose channels have numbers of their own, and the gradients of these numbers.
//
// Where a channel's elements are neighbours in rows of `inner` elements (NCHW), blocks belong to a channel; where the
// channels are neighbours (channels_last), threads do. Sums are of a fixed order: the same for the same shape.
#pragma once

#include <utility>

#include "elementwise.cuh"

namespace sat_kernels::cuda {

// A sum that keeps what rounding takes from it (Knuth's TwoSum): float's, without double.
template <class T> struct Sum {
  T total = T(0), rest = T(0);
  __device__ __forceinline__ void add(T x) {
    const T sum = total + x, part = sum - total;
    rest += (total - (sum - part)) + (x - part);
    total = sum;
  }
  // Beside an infinite total there is no rest.
  __device__ __forceinline__ T value() const { return rest == rest ? total + rest : total; }
};

template <class T, int N> __device__ __forceinline__ T sum_of(T (&terms)[N]) {
  for (int width = N / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) terms[j] += terms[j + width];
  }
  return terms[0];
}

// The sum of `value` over the threads whose numbers are equal modulo `columns`, a power of two like the number of
// threads; on the first of them.
template <class T> __device__ __forceinline__ T sum_over_rows(T value, int columns) {
  __shared__ T values[kThreads];
  __syncthreads();  // the first thread may still be reading the previous sum
  values[threadIdx.x] = value;
  for (int width = blockDim.x / 2; width >= columns; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) values[threadIdx.x] += values[threadIdx.x + width];
  }
  return values[threadIdx.x];
}

// sums[parameter][channel][split].
template <class T>
__device__ __forceinline__ void write_sum(T* sums, int parameter, int64_t channel, int64_t channels, T sum) {
  write_one(sums + (parameter * channels + channel) * gridDim.y + blockIdx.y, sum);
}

// The input's gradient, and the terms of the parameters'.
template <class T, int N, class S, class Formulas, int parameters>
__device__ __forceinline__ void apply_with_terms(const Slice<N>& slice, const Tensors<S>& tensors, const Formulas& f,
                                                 T (&terms)[parameters][N]) {
  T x[N], g[N], y[N];
  slice.load(tensors.input, x);
  slice.load(tensors.grad, g);
  for (int j = 0; j < N; ++j) {
    y[j] = g[j] * f[j].derivative(x[j]);
    const auto slopes = f[j].parameters(x[j]);
    for (int k = 0; k < parameters; ++k) terms[k][j] = slice.has(j) ? g[j] * slopes.of[k] : T(0);
  }
  slice.store(tensors.out, y);
}

// How threads share the work on a tensor of [outer][channels][inner] elements.
struct Layout {
  int64_t outer, channels, inner;
  // So many threads, a power of two, take a piece of a row, and the block's other threads those of other rows.
  int lanes;
  dim3 grid;  // y: splits of what belongs to a channel
  bool by_rows;

  template <int N> static Layout of(const Elementwise& job, int64_t size) {
    Layout l;
    l.channels = job.channels;
    l.inner = job.channels == 1 ? size : job.inner;
    l.outer = size / (l.channels * l.inner);
    l.by_rows = l.channels == 1 || l.inner > 1;
    const int64_t row = l.by_rows ? l.inner : l.channels;
    for (l.lanes = 1; l.lanes < (l.by_rows ? 32 : kThreads) && l.lanes * N < row;) l.lanes *= 2;
    // A thread's passes through its loop: at least 8, if that leaves enough blocks.
    const int64_t pieces = divided_up(row, l.lanes * N), groups = kThreads / l.lanes;
    const int64_t columns = l.by_rows ? l.channels : pieces, work = l.by_rows ? l.outer * pieces : l.outer;
    const int64_t most = std::max<int64_t>(1, kBlocks / columns);
    l.grid = dim3(unsigned(columns), unsigned(std::clamp<int64_t>(divided_up(work, 8 * groups), 1, most)));
    return l;
  }
};

template <template <class> class Formula, Pass P, class T, class S>
__global__ void __launch_bounds__(kThreads, 1)
    by_rows(Learned<Formula, T> source, Tensors<S> tensors, Layout layout, bool packed, Exact<S>* sums) {
  constexpr int N = kPerAccess<S>, parameters = kParameters<Formula<T>>;
  const int64_t channel = blockIdx.x, pieces = divided_up(layout.inner, layout.lanes * N);
  const int groups = kThreads / layout.lanes, lane = threadIdx.x % layout.lanes;
  const OneFormula f{source.formula(channel)};
  Sum<T> found[parameters];
  // Piece `piece` of row `row`, then the one that all groups together are further on.
  const int64_t group = int64_t(blockIdx.y) * groups + threadIdx.x / layout.lanes, stride = int64_t(gridDim.y) * groups;
  int64_t row = group / pieces, piece = group % pieces;
  const int64_t rows_on = stride / pieces, pieces_on = stride % pieces;
  while (row < layout.outer) {
    const int64_t begin = (row * layout.channels + channel) * layout.inner;
    const Slice<N> slice(begin + piece * (layout.lanes * N), begin + layout.inner, lane, layout.lanes, packed);
    if constexpr (P == Pass::parameter_backward) {
      T terms[parameters][N];
      apply_with_terms(slice, tensors, f, terms);
      for (int k = 0; k < parameters; ++k) found[k].add(sum_of(terms[k]));
    } else {
      apply<P, T>(slice, tensors, [&] { return f; });
    }
    row += rows_on;
    piece += pieces_on;
    if (piece >= pieces) {
      piece -= pieces;
      ++row;
    }
  }
  if constexpr (P == Pass::parameter_backward) {
    for (int k = 0; k < parameters; ++k) {
      const T sum = sum_over_rows(found[k].value(), 1);
      if (threadIdx.x == 0) write_sum(sums, k, channel, layout.channels, sum);
    }
  }
}

// One for each channel of a slice.
template <class F, int N> struct FormulaEach {
  F of[N];
  __device__ __forceinline__ const F& operator[](int j) const { return of[j]; }
};
template <class Source, int N, int... j>
__device__ __forceinline__ auto formulas_of(const Source& source, const Slice<N>& slice, int64_t channels,
                                            std::integer_sequence<int, j...>) {
  const auto formula = [&](int64_t channel) { return source.formula(channel < channels ? channel : channels - 1); };
  return FormulaEach<decltype(formula(0)), N>{{formula(slice.index(j))...}};
}

template <template <class> class Formula, Pass P, class T, class S>
__global__ void __launch_bounds__(kThreads, 1)
    by_columns(Learned<Formula, T> source, Tensors<S> tensors, Layout layout, bool packed, Exact<S>* sums) {
  constexpr int N = kPerAccess<S>, parameters = kParameters<Formula<T>>;
  const int groups = kThreads / layout.lanes, lane = threadIdx.x % layout.lanes;
  const Slice<N> channels(int64_t(blockIdx.x) * (layout.lanes * N), layout.channels, lane, layout.lanes, packed);
  const auto f = formulas_of(source, channels, layout.channels, std::make_integer_sequence<int, N>());
  Sum<T> found[parameters][N];
  for (int64_t row = int64_t(blockIdx.y) * groups + threadIdx.x / layout.lanes; row < layout.outer;
       row += int64_t(gridDim.y) * groups) {
    Slice<N> slice = channels;
    slice.first += row * layout.channels;
    slice.end += row * layout.channels;
    if constexpr (P == Pass::parameter_backward) {
      T terms[parameters][N];
      apply_with_terms(slice, tensors, f, terms);
      for (int k = 0; k < parameters; ++k) {
        for (int j = 0; j < N; ++j) found[k][j].add(terms[k][j]);
      }
    } else {
      apply<P, T>(slice, tensors, [&] { return f; });
    }
  }
  if constexpr (P == Pass::parameter_backward) {
    for (int k = 0; k < parameters; ++k) {
      for (int j = 0; j < N; ++j) {
        const T sum = sum_over_rows(found[k][j].value(), layout.lanes);
        if (threadIdx.x < layout.lanes && channels.has(j)) {
          write_sum(sums, k, channels.index(j), layout.channels, sum);
        }
      }
    }
  }
}

// Block (c, k): the gradient of the first or second parameter for channel c.
template <class T> __global__ void add_up(const T* sums, int splits, T* first, T* second) {
  const int64_t channel = blockIdx.x, channels = gridDim.x;
  const T* mine = sums + (blockIdx.y * channels + channel) * splits;
  Sum<T> found;
#pragma unroll 8
  for (int s = threadIdx.x; s < splits; s += blockDim.x) found.add(read_one(mine + s));
  const T sum = sum_over_rows(found.value(), 1);
  if (threadIdx.x == 0) write_one((blockIdx.y == 0 ? first : second) + channel, sum);
}

template <template <class> class Formula, class S>
void run_channels(Pass pass, const Elementwise& job, int64_t size, void* partial, cudaStream_t stream) {
  constexpr int N = kPerAccess<S>, parameters = kParameters<Formula<float>>;
  // Parameters' gradients are as exact as in float32, whatever the input.
  using T = Number<S>;
  using E = Exact<S>;
  const Layout layout = Layout::of<N>(job, size);
  const Tensors<S> tensors(job);
  // Rows begin where a Pack may be if there is but one, or if each holds whole ones.
  const int64_t row = layout.by_rows ? layout.inner : layout.channels;
  const bool packed = tensors.take_packs() && (row == size || row % N == 0);
  E* sums = static_cast<E*>(partial);
  const auto run = [&](auto rows, auto columns, const auto& source) {
    launch(layout.by_rows ? rows : columns, layout.grid, kThreads, stream, source, tensors, layout, packed, sums);
  };
  const Learned<Formula, T> source(job);
  switch (pass) {
#define SK_PASS(P, T) by_rows<Formula, P, T, S>, by_columns<Formula, P, T, S>
    case Pass::forward: return run(SK_PASS(Pass::forward, T), source);
    case Pass::backward: return run(SK_PASS(Pass::backward, T), source);
    case Pass::double_backward: return run(SK_PASS(Pass::double_backward, T), source);
    default: break;
  }
  run(SK_PASS(Pass::parameter_backward, E), Learned<Formula, E>(job));
#undef SK_PASS
  static_assert(kMostNumbers == 2);
  const dim3 results(unsigned(layout.channels), unsigned(parameters));
  const int splits = int(layout.grid.y);
  launch(add_up<E>, results, splits > 32 ? kThreads : 32, stream, sums, splits, static_cast<E*>(job.parameter_grads[0]),
         static_cast<E*>(job.parameter_grads[1]));
}

template <class S> int64_t partial_sums(const Elementwise& job, int64_t size) {
  const Layout layout = Layout::of<kPerAccess<S>>(job, size);
  return kMostNumbers * layout.channels * layout.grid.y;
}

}  // namespace sat_kernels::cuda
