// What every machine runs: SSE2 on x86-64, NEON on aarch64.
#define SK_TARGET baseline
#define SK_WIDE 4  // floats of a register
#include "attack_loops.h"
