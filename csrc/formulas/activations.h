// THE formulas: one struct per activation, over float or double.
//
// value(x), derivative(x), second(x): f, f' and f''. Learnable ones have kParameters and parameters(x), df/dp for
// each of their numbers, too. Constructed from two numbers, of which some are not used; what depends on them alone
// is computed once. Stable forms and their derivation: each struct says where the plain one loses its digits.
// Limits are kept, and NaN only comes of NaN: arguments are cut where f' and f'' have their limits.
#pragma once

#include "number.h"

namespace sat_kernels {

// df/dp for each learnable parameter.
template <class T, int N> struct Gradients {
  T of[N];
};

// How many learnable parameters a formula has.
template <class Formula> constexpr int kParameters = 0;
template <class Formula>
  requires requires { Formula::kParameters; }
constexpr int kParameters<Formula> = Formula::kParameters;

#ifndef SK_GPU
// The formula, with its numbers hidden from the compiler: see Range. For numbers that are constant in a loop.
template <class Formula> [[gnu::always_inline]] inline Formula hidden(Formula formula) {
  asm("" : "+m"(formula));
  return formula;
}
#endif

}  // namespace sat_kernels

#include "normal_family.h"
#include "piecewise_family.h"
#include "serf.h"
#include "sigmoid_family.h"
#include "softplus_family.h"

// Every activation: SK_FIXED or SK_LEARNABLE(operator, struct, its numbers in the operator's schema, and their C++
// types).
#define SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)                                              \
  SK_FIXED(silu, SiLU, "")                                                                  \
  SK_FIXED(gelu, GELU, "")                                                                  \
  SK_FIXED(gelu_tanh, GELUTanh, "")                                                         \
  SK_FIXED(softplus, Softplus, ", float beta, float threshold", double, double)             \
  SK_FIXED(elu, ELU, ", float alpha", double)                                               \
  SK_FIXED(celu, CELU, ", float alpha", double)                                             \
  SK_FIXED(mish, Mish, "")                                                                  \
  SK_FIXED(serf, Serf, "")                                                                  \
  SK_FIXED(relu_smooth_backward, ReLUSmoothBackward, ", float alpha", double)               \
  SK_LEARNABLE(swish, Swish, ", Tensor beta", Tensor)                                       \
  SK_LEARNABLE(parametric_softplus, ParametricSoftplus, ", Tensor alpha", Tensor)           \
  SK_LEARNABLE(smooth_relu, SmoothReLU, ", Tensor beta", Tensor)                            \
  SK_LEARNABLE(squareplus, Squareplus, ", Tensor b", Tensor)                                \
  SK_LEARNABLE(smu, SMU, ", Tensor alpha, Tensor mu", Tensor, Tensor)                       \
  SK_LEARNABLE(pssilu, PSSiLU, ", Tensor alpha, Tensor beta", Tensor, Tensor)
