#include "elementwise.h"

// The activations' names, in the order of their numbers.
extern "C" const char* activation_names() {
#define SK_NAME(name, ...) #name " "
  return SK_ACTIVATIONS(SK_NAME, SK_NAME);
#undef SK_NAME
}
