// CUDA's execution model on one CPU thread, as far as our kernels use it.
//
// The blocks of a grid run one after the other. The threads of a block are fibers: each runs until it comes to a
// barrier, a shuffle or its end, and then the next one does, in an order that is a setting. So a barrier that is
// missing shows in one order or another. What the kernels do wrong is thrown out of launch().
#pragma once

#include <link.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

// CUDA's own 16-bit numbers and vectors.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include "approximations.h"
#include "memory.h"

// Thread-local storage is what a module has apart from all others, at an address that can be asked for: all arrays
// in shared memory can be poisoned, whatever their types.
#undef __shared__
#define __shared__ static thread_local
#undef __forceinline__
#define __forceinline__ inline
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __restrict__
#define __restrict__ __restrict

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace sat_kernels::emulator {

enum class Order { ascending, descending, shuffled };
struct Settings {
  Order order = Order::ascending;  // of the blocks and of the threads in them
  uint64_t seed = 0;               // for Order::shuffled
  int64_t edge_blocks = 0;         // if not 0, only so many of a grid's first blocks run, and of its last
};
inline Settings settings;

constexpr int kWarp = 32, kMaxThreads = 1024, kStack = 1 << 16;

enum class State { ready, barrier, shuffle, ended };
struct Thread {
  State state;
  std::source_location where;
  jmp_buf context;
  // A shuffle's, the values by their bits. received is valid when the thread goes on.
  uint32_t mask;
  int source;
  uint64_t value, received;
};

// The block that runs.
struct Block {
  std::function<void()> body;
  std::vector<Thread> threads;
  std::vector<int64_t> order;
  std::unique_ptr<char[]> stacks{new char[size_t(kMaxThreads) * kStack]};
  size_t started;
  int running;
  jmp_buf scheduler;
  std::string error;
};
inline Block block;

inline void ordered(std::vector<int64_t>& indices, std::mt19937_64& random) {
  if (settings.order == Order::descending) std::reverse(indices.begin(), indices.end());
  if (settings.order == Order::shuffled) std::shuffle(indices.begin(), indices.end(), random);
}

inline uint3 position(int64_t i, dim3 size) {
  return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

inline void becomes_running(int64_t thread) {
  block.running = int(thread);
  threadIdx = position(thread, blockDim);
}

// Of the size that a launch asks for, and then a zone that is to stay as it is.
inline std::vector<char> dynamic_shared;
constexpr size_t kZone = 4096;
inline char* dynamic_shared_memory() { return dynamic_shared.data(); }
inline void poison_dynamic_shared() { std::memset(dynamic_shared.data(), 0xff, dynamic_shared.size()); }
inline void check_dynamic_shared() {
  const auto zone = dynamic_shared.end() - kZone;
  if (std::any_of(zone, dynamic_shared.end(), [](char byte) { return byte != char(0xff); })) {
    throw std::runtime_error("a store behind the end of " + std::to_string(dynamic_shared.size() - kZone) +
                             " bytes of shared memory");
  }
}

inline constinit thread_local char first_shared_byte = 0;
struct SharedMemory {
  void* storage = nullptr;
  size_t bytes = 0;
};
inline SharedMemory shared_memory() {
  first_shared_byte = 0;  // storage is allocated at the first access
  SharedMemory found;
  dl_iterate_phdr(
      [](dl_phdr_info* module, size_t, void* found) {
        char* storage = static_cast<char*>(module->dlpi_tls_data);
        for (int i = 0; i < module->dlpi_phnum && storage != nullptr; ++i) {
          const auto& header = module->dlpi_phdr[i];
          const bool ours = &first_shared_byte >= storage && &first_shared_byte < storage + header.p_memsz;
          if (header.p_type == PT_TLS && ours) *static_cast<SharedMemory*>(found) = {storage, header.p_memsz};
        }
        return 0;
      },
      &found);
  return found;
}

// A fiber starts one thread after the other, as long as none of them has to wait.
inline void fiber() {
  try {
    while (block.started < block.order.size()) {
      becomes_running(block.order[block.started++]);
      block.body();
      block.threads[block.running].state = State::ended;
      block.threads[block.running].where = {};
    }
  } catch (const std::exception& error) {
    block.error = error.what();
  }
  _longjmp(block.scheduler, 1);
}

// Runs the thread, in a new fiber or from where it waits, until it waits or ends. (swapcontext would do, but for two
// system calls each time.)
inline void start(ucontext_t& context) {
  if (_setjmp(block.scheduler) == 0) setcontext(&context);
}
inline void resume(Thread& thread) {
  if (_setjmp(block.scheduler) == 0) _longjmp(thread.context, 1);
}

inline void wait(State state, std::source_location where) {
  Thread& thread = block.threads[block.running];
  thread.state = state;
  thread.where = where;
  if (_setjmp(thread.context) == 0) _longjmp(block.scheduler, 1);
}

inline std::string described(const Thread& thread) {
  const std::string name = "thread " + std::to_string(&thread - block.threads.data());
  if (thread.state == State::ended) return name + " has ended";
  return name + " waits at the " + (thread.state == State::barrier ? "barrier" : "shuffle") + " in " +
         thread.where.file_name() + ":" + std::to_string(thread.where.line());
}

inline bool together(const Thread& a, const Thread& b) {
  return a.state == b.state && a.mask == b.mask && a.where.line() == b.where.line() &&
         std::strcmp(a.where.file_name(), b.where.file_name()) == 0;
}

// Gives the lanes of a warp what they shuffle, where all that take part have come.
inline bool shuffle(Thread* lanes, int size) {
  bool moved = false;
  for (int lane = 0; lane < size; ++lane) {
    if (lanes[lane].state != State::shuffle) continue;
    const uint32_t mask = lanes[lane].mask;
    const auto takes_part = [&](int i) { return i >= 0 && i < kWarp && (mask >> i & 1) != 0; };
    if (!takes_part(lane)) throw std::runtime_error(described(lanes[lane]) + ", whose mask leaves it out");
    bool complete = true;
    for (int i = 0; i < kWarp; ++i) complete &= !takes_part(i) || (i < size && together(lanes[i], lanes[lane]));
    if (!complete) continue;
    for (int i = 0; i < size; ++i) {
      if (!takes_part(i)) continue;
      const int source = lanes[i].source < kWarp ? lanes[i].source : i;
      if (!takes_part(source)) throw std::runtime_error(described(lanes[i]) + " for a lane that takes no part");
      lanes[i].received = lanes[source].value;
    }
    for (int i = 0; i < size; ++i) {
      if (takes_part(i)) lanes[i].state = State::ready;
    }
    moved = true;
  }
  return moved;
}

// Lets go on whoever has what it waits for. False when all threads have ended.
inline bool release() {
  auto& threads = block.threads;
  const int size = int(threads.size());
  bool moved = false;
  for (int warp = 0; warp < size; warp += kWarp) moved |= shuffle(&threads[warp], std::min(kWarp, size - warp));
  if (moved) return true;
  for (const Thread& thread : threads) {
    if (!together(thread, threads[0])) throw std::runtime_error(described(threads[0]) + ", " + described(thread));
  }
  if (threads[0].state == State::ended) return false;
  if (threads[0].state == State::shuffle) throw std::runtime_error(described(threads[0]) + " for lanes that never come");
  for (Thread& thread : threads) thread.state = State::ready;
  return true;
}

inline void run_block(std::mt19937_64& random, SharedMemory shared) {
  std::iota(block.order.begin(), block.order.end(), 0);
  ordered(block.order, random);
  std::memset(shared.storage, 0xff, shared.bytes);  // NaN, whatever the type
  poison_dynamic_shared();
  for (Thread& thread : block.threads) {
    thread.state = State::ready;
    thread.mask = 0;
  }
  block.error.clear();
  block.started = 0;
  for (size_t fibers = 0; block.started < block.order.size() && block.error.empty(); ++fibers) {
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = block.stacks.get() + fibers * kStack;
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    makecontext(&context, fiber, 0);
    start(context);
  }
  while (block.error.empty() && release()) {
    for (const int64_t i : block.order) {
      if (block.threads[i].state != State::ready || !block.error.empty()) continue;
      becomes_running(i);
      resume(block.threads[i]);
    }
  }
  if (!block.error.empty()) {
    throw std::runtime_error("thread " + std::to_string(block.running) + ": " + block.error);
  }
}

inline void run(dim3 grid, dim3 size, int shared_bytes, std::function<void()> body) {
  const int64_t blocks = int64_t(grid.x) * grid.y * grid.z, threads = int64_t(size.x) * size.y * size.z;
  if (blocks == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 || threads == 0 || threads > kMaxThreads) {
    throw std::runtime_error("a launch of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                             std::to_string(grid.z) + " blocks of " + std::to_string(threads) + " threads");
  }
  gridDim = grid;
  blockDim = size;
  dynamic_shared.resize(shared_bytes + kZone);
  block.body = std::move(body);
  block.threads.resize(threads);
  block.order.resize(threads);
  const int64_t edge = settings.edge_blocks == 0 ? blocks : std::min(blocks, settings.edge_blocks);
  std::vector<int64_t> indices(std::min(blocks, 2 * edge));
  std::iota(indices.begin(), indices.begin() + edge, 0);
  std::iota(indices.begin() + edge, indices.end(), blocks - (int64_t(indices.size()) - edge));
  std::mt19937_64 random(settings.seed);
  ordered(indices, random);
  const SharedMemory shared = shared_memory();
  for (const int64_t i : indices) {
    blockIdx = position(i, grid);
    try {
      run_block(random, shared);
      check_dynamic_shared();
    } catch (const std::exception& error) {
      throw std::runtime_error("block " + std::to_string(i) + ": " + error.what());
    }
  }
}

template <class T>
  requires std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, int>
T shuffled(uint32_t mask, T value, int source, std::source_location where) {
  Thread& thread = block.threads[block.running];
  thread.mask = mask;
  thread.source = source;
  std::memcpy(&thread.value, &value, sizeof(T));
  wait(State::shuffle, where);
  thread.mask = 0;
  std::memcpy(&value, &thread.received, sizeof(T));
  return value;
}
inline int lane() { return block.running % kWarp; }

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, int shared_bytes, cudaStream_t, const A&... arguments) {
  run(grid, block, shared_bytes, [&] { kernel(P(arguments)...); });
}
template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t stream, const A&... arguments) {
  launch(kernel, grid, block, 0, stream, arguments...);
}

}  // namespace sat_kernels::emulator

inline void __syncthreads(std::source_location where = std::source_location::current()) {
  sat_kernels::emulator::wait(sat_kernels::emulator::State::barrier, where);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, int delta, std::source_location where = std::source_location::current()) {
  return sat_kernels::emulator::shuffled(mask, value, sat_kernels::emulator::lane() + delta, where);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, std::source_location where = std::source_location::current()) {
  return sat_kernels::emulator::shuffled(mask, value, sat_kernels::emulator::lane() ^ bits, where);
}

namespace sat_kernels::cuda {
using emulator::launch;
}
