// What loops say to the compiler, so that it vectorises them.
#pragma once

#if defined(__clang__)
#define SK_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SK_INDEPENDENT _Pragma("GCC ivdep")
#endif
