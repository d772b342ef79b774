// What every machine runs: SSE2 on x86-64, NEON on aarch64.
#define SK_TARGET baseline
#include "attack_loops.h"
