// What algorithms over a sample are written with: a Team is all who work on one sample together, a thread of the CPU
// (cpu/team.h) or a block of a GPU's (cuda/team.cuh).
//
//   each(size, f)              calls f(at) for each element, each once; whoever does it does so in every pass
//   each_downward(size, f)     as each(), but where downward is true, sums and products are rounded down
//   sum<K>(size, f)            the K sums of what f(at) returns, a Terms<double, K>; every member has them
//   products(size, d, v)       the sums of v v, d v and d d, where d and v are of T: within product_rounding<T>() of that of
//                              their absolute terms, if none underflows
//   most<K>(size, f)           likewise the maxima of a Terms<T, K>; at least those of T's lowest for no elements.
//                              NaN is passed over.
//   Held<T>, hold<T>(size)     a number for each element, held[at], which lives as long as the algorithm
//   read(p, at), write(p, at, value)   an element in memory, of any number type
//   leader()                   true for one member
//   sync()                     members see what the others wrote to memory before it
//
// `at` converts to the element's index; at.short_index() is the same where there are fewer than 2^31. What one pass
// writes at `at` a later one may read there without sync().
#pragma once

#include "number.h"

namespace sat_kernels {

template <class T, int K> struct Terms {
  T of[K];
};

}  // namespace sat_kernels
