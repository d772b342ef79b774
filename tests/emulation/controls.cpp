#include "controls.h"

using namespace sat_kernels::emulator;

extern "C" {

void configure(int order, int64_t seed, int64_t edge_blocks, int direction) {
  settings = {Order(order), uint64_t(seed), edge_blocks};
  error_direction = direction;
}

void clear_buffers() { buffers.clear(); }

void add_buffer(const void* memory, int64_t bytes, bool writable) {
  const auto first = reinterpret_cast<uintptr_t>(memory);
  buffers.push_back({first, first + bytes, writable, {}, {}});
}

// Instructions so far, of 1, 2, 4, 8 and 16 bytes: loads, then stores.
void count_accesses(int64_t buffer, int64_t* counts) {
  std::copy_n(buffers[buffer].loads, 5, counts);
  std::copy_n(buffers[buffer].stores, 5, counts + 5);
}

float approximate(int function, float x) {
  switch (function) {
    case 0: return ex2_approx_ftz(x);
    case 1: return rcp_approx_ftz(x);
    case 2: return sqrt_approx_ftz(x);
    default: return lg2_approx_ftz(x);
  }
}
}
