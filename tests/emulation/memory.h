// The memory that a kernel may touch, and how often it did.
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace sat_kernels::emulator {

struct Buffer {
  uintptr_t first, end;
  bool writable;
  int64_t loads[5], stores[5];  // [k]: instructions of 2^k bytes
};
inline std::vector<Buffer> buffers;

inline void access(const void* pointer, int bytes, bool store) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const char* kind = store ? "store" : "load";
  const auto fail = [&](const std::string& why) {
    std::string text = "a " + std::string(kind) + " of " + std::to_string(bytes) + " bytes " + why;
    for (const Buffer& b : buffers) {
      text += ", " + std::to_string(int64_t(address - b.first)) + " bytes into one of " + std::to_string(b.end - b.first);
    }
    throw std::runtime_error(text);
  };
  if (!std::has_single_bit(unsigned(bytes)) || bytes > 16) fail("is no instruction");
  if (address % bytes != 0) fail("is misaligned");
  for (Buffer& b : buffers) {
    if (address < b.first || address + bytes > b.end) continue;
    if (store && !b.writable) fail("is to an input");
    ++(store ? b.stores : b.loads)[std::countr_zero(unsigned(bytes))];
    return;
  }
  fail("is outside of every buffer");
}

inline void loaded(const void* pointer, int bytes) { access(pointer, bytes, false); }
inline void stored(const void* pointer, int bytes) { access(pointer, bytes, true); }

}  // namespace sat_kernels::emulator
