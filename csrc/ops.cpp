// The schema of every operator of the package.
#include <torch/csrc/stable/library.h>

#include "formulas/activations.h"

STABLE_TORCH_LIBRARY(sat_kernels, m) {
  // f(input), the same in place, grad_output f'(input), and the derivative of that along grad_grad_input
  // with respect to grad_output and to input. Numbers are what the activation's formula is made from.
#define SK_FIXED(name, Formula, numbers, ...)                                                         \
  m.def(#name "(Tensor input" numbers ") -> Tensor");                                                 \
  m.def(#name "_(Tensor(a!) input" numbers ") -> ()");                                                \
  m.def(#name "_backward(Tensor grad_output, Tensor input" numbers ") -> Tensor");                    \
  m.def(#name "_double_backward(Tensor grad_grad_input, Tensor grad_output, Tensor input" numbers     \
              ") -> (Tensor, Tensor)");
  // With learnable numbers, tensors of one element or of one per channel: also every gradient in one pass.
#define SK_LEARNABLE(name, Formula, parameters, ...)                                          \
  SK_FIXED(name, Formula, parameters)                                                         \
  m.def(#name "_parameter_backward(Tensor grad_output, Tensor input" parameters               \
              ") -> (Tensor" SK_TENSORS(__VA_ARGS__) ")");
  // ", Tensor" for each parameter.
#define SK_TENSORS(first, ...) ", Tensor" __VA_OPT__(", Tensor")
  SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
#undef SK_TENSORS

  // x_adv + alpha sign(grad), projected to the Linf ball around x and to the box, in place. eps, clip_min and
  // clip_max are numbers of x's dtype. per_sample: one eps and alpha per index of the first dimension.
  m.def(
      "pgd_step_linf_(Tensor(a!) x_adv, Tensor grad, Tensor x, float eps, float alpha, float clip_min, "
      "float clip_max) -> ()");
  m.def(
      "pgd_step_linf_per_sample_(Tensor(a!) x_adv, Tensor grad, Tensor x, Tensor eps, Tensor alpha, "
      "float clip_min, float clip_max) -> ()");
}
