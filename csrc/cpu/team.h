// One thread that works on a sample: see formulas/team.h.
#pragma once

#include <cstddef>

#include "../formulas/team.h"
#include "../storage.h"
#include "rounding.h"
#include "vectorise.h"

namespace sat_kernels::cpu::SK_TARGET {

// An element's index, as the sum of where a stretch of them begins and a short number: of long ones, fewer fit a vector.
struct At {
  int64_t start;
  int32_t offset;
  SK_FN operator int64_t() const { return start + offset; }
  SK_FN int32_t short_index() const { return int32_t(start) + offset; }
};

// Eight neighbours' index: what is read there is a vector.
struct Eight {
  int64_t start;
};

class Team {
 public:
  template <class T> using Held = T*;

  // `room`: for what is held, 8 bytes for each element and held number.
  explicit Team(void* room) : room_(static_cast<char*>(room)) {}

  template <class T> Held<T> hold(int64_t size) {
    T* held = reinterpret_cast<T*>(room_);
    room_ += size * 8;
    return held;
  }

  template <class F> SK_FN void each(int64_t size, const F& f) const {
    for (int64_t start = 0; start < size; start += kStretch) {
      const int32_t n = int32_t(size - start < kStretch ? size - start : kStretch);
      SK_INDEPENDENT
      for (int32_t i = 0; i < n; ++i) f(At{start, i});
    }
  }

  // A sum rounded down is one instruction then, of 10: an L2 move takes 0.24 ns per element, not 0.32.
  static constexpr bool downward = true;
  template <class F> SK_FN void each_downward(int64_t size, const F& f) const {
    const RoundingDown rounding;
    each(size, f);
  }

  template <int K, class F> SK_FN Terms<double, K> sum(int64_t size, const F& f) const {
    return together<double, K>(size, 0.0, f, [](auto& sum, const auto& term) SK_INLINE_LAMBDA { sum += term; });
  }

  template <class T> static constexpr double product_rounding() { return sizeof(T) == 8 ? 0 : 7 * 0x1p-24; }
  template <class D, class V> SK_FN Terms<double, 3> products(int64_t size, const D& d, const V& v) const {
    using T = std::remove_cvref_t<decltype(d(At{}))>;
    if constexpr (sizeof(T) == 8) {
      return sum<3>(size, [&](At at) SK_INLINE_LAMBDA {
        const T far = d(at), along = v(at);
        return Terms<T, 3>{{along * along, far * along, far * far}};
      });
    } else {
      Products products;
      int64_t start = 0;
      for (; start + Products::kBlock <= size; start += Products::kBlock) {
        products.add([&](int i) SK_INLINE_LAMBDA { return d(Eight{start + i}); },
                     [&](int i) SK_INLINE_LAMBDA { return v(Eight{start + i}); });
      }
      if (start < size) {
        float far[Products::kBlock] = {}, along[Products::kBlock] = {};
        SK_INDEPENDENT
        for (int32_t i = 0; i < int32_t(size - start); ++i) {
          far[i] = d(At{start, i});
          along[i] = v(At{start, i});
        }
        products.add([&](int i) SK_INLINE_LAMBDA { return read(far, Eight{i}); },
                     [&](int i) SK_INLINE_LAMBDA { return read(along, Eight{i}); });
      }
      return products.sums();
    }
  }

  template <int K, class F> SK_FN auto most(int64_t size, const F& f) const {
    using T = std::remove_cvref_t<decltype(f(At{}).of[0])>;
    return together<T, K>(size, -FloatBits<T>::kLargest, f,
                          [](auto& top, const auto& value) SK_INLINE_LAMBDA { top = value > top ? value : top; });
  }

  template <class S> SK_FN static Opmath<S> read(const S* from, int64_t i) { return load(from[i]); }
  SK_FN static auto read(const float* from, Eight at) {
    Floats values;
    std::memcpy(&values, from + at.start, sizeof(values));
    return values;
  }
  template <class S, class T> SK_FN static void write(S* to, int64_t i, T value) { to[i] = store<S>(Opmath<S>(value)); }
  static constexpr bool leader() { return true; }
  static void sync() {}

 private:
  static constexpr int64_t kBlock = 256, kStretch = 1 << 20;
  typedef float Floats __attribute__((vector_size(32)));

  // Sums in float, less than half of the time of doubles: each of 32 lanes adds up 4 products, then 4 lanes are added,
  // and the rest is in double. With the product's own, 7 roundings.
  class Products {
   public:
    static constexpr int kBlock = 128;

    // d(i), v(i): the eight numbers of a block from i on.
    template <class D, class V> SK_FN void add(const D& d, const V& v) {
      Floats sums[3][4] = {};
      for (int i = 0; i < kBlock; i += 32) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const auto far = d(i + 8 * j);
          const auto along = v(i + 8 * j);
          sums[0][j] += along * along;
          sums[1][j] += far * along;
          sums[2][j] += far * far;
        }
      }
      for (int k = 0; k < 3; ++k) {
        const Floats sum = (sums[k][0] + sums[k][1]) + (sums[k][2] + sums[k][3]);
        typedef float Half __attribute__((vector_size(16)));
        Half halves[2];
        std::memcpy(halves, &sum, sizeof(sum));
        for (int h = 0; h < 2; ++h) totals_[k][h] += __builtin_convertvector(halves[h], Doubles);
      }
    }
    SK_FN Terms<double, 3> sums() const {
      Terms<double, 3> result{};
      for (int k = 0; k < 3; ++k) {
        const Doubles total = totals_[k][0] + totals_[k][1];
        for (int j = 0; j < 4; ++j) result.of[k] += total[j];
      }
      return result;
    }

   private:
    // In registers: vectors of 64 bytes would go through memory.
    typedef double Doubles __attribute__((vector_size(32)));
    Doubles totals_[3][2] = {};
  };

  // Combines what f returns, as T, with `none` and with each other.
  template <class T, int K, class F, class Combine>
  SK_FN static Terms<T, K> together(int64_t size, T none, const F& f, const Combine& combine) {
    // What f returns goes through a buffer: combined in its loop, it would keep that from being vectorised. Four
    // vectors side by side, since one would wait for itself at every term. (Arrays of numbers would stay in memory.)
    using Term = std::remove_cvref_t<decltype(f(At{}).of[0])>;
    constexpr int64_t lanes = 32 / sizeof(T), step = 4 * lanes;
    typedef T Vector __attribute__((vector_size(32)));
    typedef Term Narrow __attribute__((vector_size(lanes * sizeof(Term))));
    alignas(64) Term terms[K][kBlock];
    Vector found[K][4];
    for (int k = 0; k < K; ++k) {
      for (int v = 0; v < 4; ++v) found[k][v] = Vector{} + none;
    }
    for (int64_t start = 0; start < size; start += kBlock) {
      const int32_t n = int32_t(size - start < kBlock ? size - start : kBlock);
      SK_INDEPENDENT
      for (int32_t i = 0; i < n; ++i) {
        const auto term = f(At{start, i});
        for (int k = 0; k < K; ++k) terms[k][i] = term.of[k];
      }
      const int64_t whole = (n + step - 1) / step * step;
      for (int k = 0; k < K; ++k) {
        for (int64_t i = n; i < whole; ++i) terms[k][i] = Term(none);
        for (int64_t i = 0; i < whole; i += step) {
          for (int v = 0; v < 4; ++v) {
            Narrow next;
            std::memcpy(&next, &terms[k][i + v * lanes], sizeof(next));
            combine(found[k][v], __builtin_convertvector(next, Vector));
          }
        }
      }
    }
    Terms<T, K> result;
    for (int k = 0; k < K; ++k) {
      for (int v = 1; v < 4; ++v) combine(found[k][0], found[k][v]);
      result.of[k] = found[k][0][0];
      for (int j = 1; j < lanes; ++j) combine(result.of[k], T(found[k][0][j]));
    }
    return result;
  }

  char* room_;
};

}  // namespace sat_kernels::cpu::SK_TARGET
