// The steps of the Linf ball, apart from where they run.
//
// `Device` runs kernels over dense memory, where there is any:
//   void linf(const PreparedStep&), void momentum_linf(const PreparedStep&), void apgd_linf(const PreparedStep&)
#pragma once

#include "step_operators.h"

namespace sat_kernels {

template <class Device>
void pgd_step_linf_(Tensor x_adv, OptionalTensor grad, Tensor x, double eps, double alpha, OptionalTensor eps_of,
                    OptionalTensor alpha_of, double clip_min, double clip_max, OptionalTensor mask,
                    OptionalTensor active, OptionalTensor out, OptionalTensor mean, OptionalTensor std) {
  const bool as_a_batch = eps_of || alpha_of || active || out;
  PreparedStep step(x_adv, {grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std},
                    as_a_batch, false);
  if (step.empty()) return;
  Device::linf(step);
  step.finish();
}

template <class Device>
void momentum_step_linf_(Tensor x_adv, Tensor momentum, Tensor grad, Tensor x, double eps, double alpha, double decay,
                         OptionalTensor eps_of, OptionalTensor alpha_of, double clip_min, double clip_max,
                         OptionalTensor mask, OptionalTensor active, OptionalTensor out, OptionalTensor mean,
                         OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std});
  step.job.momentum = step.changed("momentum", momentum);
  step.job.decay = decay;
  if (step.empty()) return;
  Device::momentum_linf(step);
  step.finish();
}

// step_size: (B or 1, 1).
template <class Device>
void apgd_step_linf_(Tensor x_adv, Tensor x_prev, Tensor grad, Tensor x, double eps, OptionalTensor eps_of,
                     Tensor step_size, bool first, double clip_min, double clip_max, OptionalTensor active,
                     OptionalTensor out, OptionalTensor mean, OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, 0, eps_of, step_size, clip_min, clip_max, {}, active, out, mean, std}, true,
                    false);
  step.job.x_prev = step.changed("x_prev", x_prev);
  step.job.first = first;
  if (step.empty()) return;
  Device::apgd_linf(step);
  step.finish();
}

// The registrations for one device.
template <class Device, class Library> void register_linf_operators(Library& m) {
  m.impl("pgd_step_linf_", TORCH_BOX((&pgd_step_linf_<Device>)));
  m.impl("momentum_step_linf_", TORCH_BOX((&momentum_step_linf_<Device>)));
  m.impl("apgd_step_linf_", TORCH_BOX((&apgd_step_linf_<Device>)));
}

}  // namespace sat_kernels
