// The direction in which sums and products are rounded.
#pragma once

#if !defined(__x86_64__)
#include <cfenv>
#endif

namespace sat_kernels::cpu::SK_TARGET {

// Down, in this thread, while it lives. The compiler takes it that nothing is ever rounded but to nearest, so what is
// to be rounded down has to come from memory and go there, which it does not move past the statements below.
class RoundingDown {
 public:
#if defined(__x86_64__)
  // fesetround() takes 80 ns, most of them for a unit that nobody uses.
  RoundingDown() {
    asm volatile("stmxcsr %0" : "=m"(before_) : : "memory");
    set((before_ & ~0x6000u) | 0x2000u);
  }
  ~RoundingDown() { set(before_); }

 private:
  static void set(unsigned mode) { asm volatile("ldmxcsr %0" : : "m"(mode) : "memory"); }
  unsigned before_;
#else
  RoundingDown() : before_(std::fegetround()) { std::fesetround(FE_DOWNWARD); }
  ~RoundingDown() { std::fesetround(before_); }

 private:
  int before_;
#endif
  RoundingDown(const RoundingDown&) = delete;
  RoundingDown& operator=(const RoundingDown&) = delete;
};

}  // namespace sat_kernels::cpu::SK_TARGET
