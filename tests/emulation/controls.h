// What the tests tell the emulator, and hear from it, through ctypes.
#pragma once

#include <exception>
#include <string>

#include "emulator.h"

namespace sat_kernels::emulator {

// What went wrong in `call`, or nullptr.
template <class Call> const char* error_of(Call call) {
  static std::string message;
  try {
    call();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

}  // namespace sat_kernels::emulator
