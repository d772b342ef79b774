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

  // Steps of attacks, in place. What the arguments are: step_operators.h; docs are in sat_kernels/ops/perturbation.py.
#define SK_REST                                                                                                    \
  "Tensor? eps_of, Tensor? alpha_of, float clip_min, float clip_max, Tensor? mask, Tensor? active, Tensor(b!)? out, " \
  "Tensor? mean, Tensor? std"
#define SK_PGD "(Tensor(a!) x_adv, Tensor? grad, Tensor x, float eps, float alpha, " SK_REST
  m.def("pgd_step_linf_" SK_PGD ") -> ()");
  m.def("pgd_step_l2_" SK_PGD ") -> ()");
  m.def("pgd_step_l1_" SK_PGD ", int top_k, Tensor? top_k_of) -> ()");
  m.def(
      "momentum_step_linf_(Tensor(a!) x_adv, Tensor(c!) momentum, Tensor grad, Tensor x, float eps, float alpha, "
      "float decay, " SK_REST ") -> ()");
#define SK_APGD_REST "float clip_min, float clip_max, Tensor? active, Tensor(b!)? out, Tensor? mean, Tensor? std) -> ()"
#define SK_APGD                                                                                                   \
  "(Tensor(a!) x_adv, Tensor(c!) x_prev, Tensor grad, Tensor x, float eps, Tensor? eps_of, Tensor step_size, "    \
  "bool first, " SK_APGD_REST
  m.def("apgd_step_linf_" SK_APGD);
  m.def("apgd_step_l2_" SK_APGD);
  m.def(
      "apgd_step_l1_(Tensor(a!) x_adv, Tensor grad, Tensor x, float eps, Tensor? eps_of, Tensor step_size, "
      "Tensor top_k, " SK_APGD_REST);
#undef SK_APGD
#undef SK_APGD_REST
#undef SK_PGD
#undef SK_REST

  // Of each row of (B, C) logits: loss, whether y is the largest, and its margin; and the loss's gradients, or tensors
  // without elements. `loss`: as csrc/losses.h numbers them.
  m.def(
      "attack_loss(Tensor logits, Tensor y, Tensor? targets, Tensor? clean_logits, int loss, float beta, bool grad, "
      "bool clean_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // A random point of the ball around x, in the box. noise, radius and norm: csrc/starts.h. Each number may be given as a
  // tensor (x_of), scale and eps also as one per sample, in x's dtype; the others are int64.
  m.def(
      "random_start(Tensor x, int noise, int radius, int norm, float scale, float eps, Tensor? scale_of, "
      "Tensor? eps_of, float clip_min, float clip_max, int seed, Tensor? seed_of, int restart, Tensor? restart_of, "
      "Tensor? sample_ids) -> Tensor");
  // Where a sample has not been fooled before, and is now or has a higher loss than ever: best = x_adv.
  m.def(
      "keep_best_(Tensor(a!) best, Tensor(b!) best_loss, Tensor(c!) success, Tensor x_adv, Tensor loss, "
      "Tensor fooled) -> ()");
  // APGD's state after a step. top_k, sparsity and x: for L1.
  m.def(
      "apgd_update_(Tensor(a!) x_adv, Tensor(b!) grad, Tensor(c!) best, Tensor(d!) best_grad, Tensor(e!) fooling, "
      "Tensor(f!) best_loss, Tensor(g!) previous_loss, Tensor(h!) checkpoint_loss, Tensor(i!) step_size, "
      "Tensor(j!) rises, Tensor(k!) reduced, Tensor(l!) success, Tensor(m!)? top_k, Tensor(n!)? sparsity, "
      "Tensor largest_step, Tensor loss, Tensor fooled, Tensor? x, int checkpoint, int few_rises) -> ()");

  // f, by its name and the numbers it is made from: numbers, or, where they are learnable, tensors.
#define SK_F "str activation, float a, float b, Tensor? a_of, Tensor? b_of"
  // f(z + delta); grad f'(z + delta); and a step of delta along that, which is written to grad_z if it is there. See
  // latent_operators.h.
  m.def("act_perturbed(Tensor z, Tensor delta, " SK_F ") -> Tensor");
  m.def("act_perturbed_backward(Tensor grad, Tensor z, Tensor delta, " SK_F ") -> Tensor");
#define SK_LATENT                                                                                                   \
  "(Tensor grad, Tensor z, Tensor(a!) delta, " SK_F ", float eps, float alpha, Tensor? eps_of, Tensor? alpha_of, " \
  "float lo, float hi, Tensor? lo_of, Tensor? hi_of, Tensor(b!)? grad_z) -> ()"
  m.def("act_backward_pgd_step_linf_" SK_LATENT);
  m.def("act_backward_pgd_step_l2_" SK_LATENT);
#undef SK_LATENT
  // f(z) and, if it is to be kept, z = conv2d(x - mean, weight) + bias, where padding adds zeros to x - mean. dtype: of the
  // results, as DType numbers them. And `steps` Linf steps from x_adv, where grad is that of the loss at f(z). See
  // conv_act_operators.h.
#define SK_CONV "Tensor weight, Tensor? bias, Tensor? mean, int stride, int padding, " SK_F
  m.def("conv_act(Tensor x, " SK_CONV ", int dtype, bool keep_z) -> (Tensor, Tensor)");
  m.def(
      "conv_act_backward_pgd_step_(Tensor grad, Tensor(a!) x_adv, Tensor x, Tensor? z, " SK_CONV
      ", float eps, float alpha, Tensor? eps_of, Tensor? alpha_of, float clip_min, float clip_max, int steps) -> ()");
#undef SK_CONV
  // What follows a convolution: input += bias + residual, and f(scale input + shift), where the four are there; and the
  // gradient at the addends, with that of the sum's other uses, grad_sum. See affine_act_operators.h.
  m.def("affine_act_(Tensor(a!) input, Tensor? bias, Tensor? residual, Tensor? scale, Tensor? shift, " SK_F ") -> Tensor");
  m.def(
      "affine_act_backward(Tensor grad, Tensor sum, Tensor? grad_sum, Tensor? scale, Tensor? shift, " SK_F
      ") -> Tensor");
#undef SK_F

  // conv2d(x, filters of 3x3) + bias by Winograd's algorithm, and filters as it takes them; `turned`, those whose
  // convolution is the input's gradient. On CPUs alone; see cpu/winograd_operators.cpp.
  m.def("winograd_weight_(Tensor(a!) out, Tensor weight, bool turned) -> ()");
  m.def("winograd_conv2d(Tensor x, Tensor weight, Tensor? bias, int padding_y, int padding_x) -> Tensor");
}
