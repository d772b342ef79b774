// The channels of elements in memory.
#pragma once

#include "../formulas/number.h"

namespace sat_kernels::cpu::SK_TARGET {

// Calls visit(offset, channel, n) for the runs that make up [begin, begin + size): n elements of one channel or, where
// channels are neighbours in memory, of n consecutive ones.
template <class Job, class Visit>
SK_FN void visit_channels(const Job& job, int64_t begin, int64_t size, const Visit& visit) {
  const bool neighbours = job.inner == 1;
  const int64_t row = begin / job.inner, period = neighbours ? job.channels : job.inner;
  int64_t channel = row % job.channels, stop = (neighbours ? begin - channel : row * job.inner) + period - begin;
  for (int64_t offset = 0; offset < size; stop += period) {
    const int64_t n = (stop < size ? stop : size) - offset;
    visit(offset, channel, n);
    offset += n;
    channel = neighbours || channel + 1 == job.channels ? 0 : channel + 1;
  }
}

}  // namespace sat_kernels::cpu::SK_TARGET
