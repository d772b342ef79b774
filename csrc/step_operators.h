// The steps of attacks, apart from where they run.
//
// `Device` runs kernels over dense memory, where there is any:
//   void linf(const PreparedStep&), and so momentum_linf, apgd_linf, l2, apgd_l2, l1
#pragma once

#include "prepared_step.h"

namespace sat_kernels {

using StepKernel = void (*)(const PreparedStep&);

// kernel: of Linf or L2. An Linf step may take all samples for one, and any gradient as it is.
template <StepKernel kernel, bool linf>
void pgd_step_(Tensor x_adv, OptionalTensor grad, Tensor x, double eps, double alpha, OptionalTensor eps_of,
               OptionalTensor alpha_of, double clip_min, double clip_max, OptionalTensor mask, OptionalTensor active,
               OptionalTensor out, OptionalTensor mean, OptionalTensor std) {
  const bool as_a_batch = !linf || eps_of || alpha_of || active || out;
  PreparedStep step(x_adv, {grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std},
                    as_a_batch, !linf);
  step.run(kernel);
}

// top_k_of: int64, (B or 1, 1).
template <StepKernel kernel>
void pgd_step_l1_(Tensor x_adv, OptionalTensor grad, Tensor x, double eps, double alpha, OptionalTensor eps_of,
                  OptionalTensor alpha_of, double clip_min, double clip_max, OptionalTensor mask, OptionalTensor active,
                  OptionalTensor out, OptionalTensor mean, OptionalTensor std, int64_t top_k, OptionalTensor top_k_of) {
  PreparedStep step(x_adv, {grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std});
  step.job.top_k = step.size_of("top_k_of", double(top_k), top_k_of, ScalarType::Long);
  step.job.skip_faces = true;
  step.run(kernel);
}

template <StepKernel kernel>
void momentum_step_linf_(Tensor x_adv, Tensor momentum, Tensor grad, Tensor x, double eps, double alpha, double decay,
                         OptionalTensor eps_of, OptionalTensor alpha_of, double clip_min, double clip_max,
                         OptionalTensor mask, OptionalTensor active, OptionalTensor out, OptionalTensor mean,
                         OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std});
  step.job.momentum = step.changed("momentum", momentum);
  step.job.decay = decay;
  step.run(kernel);
}

// step_size: (B or 1, 1).
template <StepKernel kernel, bool linf>
void apgd_step_(Tensor x_adv, Tensor x_prev, Tensor grad, Tensor x, double eps, OptionalTensor eps_of, Tensor step_size,
                bool first, double clip_min, double clip_max, OptionalTensor active, OptionalTensor out,
                OptionalTensor mean, OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, 0, eps_of, step_size, clip_min, clip_max, {}, active, out, mean, std}, true,
                    !linf);
  step.job.x_prev = step.changed("x_prev", x_prev);
  step.job.first = first;
  step.run(kernel);
}

// step_size, top_k: (B or 1, 1). AutoAttack's step, which does not look at the box's faces.
template <StepKernel kernel>
void apgd_step_l1_(Tensor x_adv, Tensor grad, Tensor x, double eps, OptionalTensor eps_of, Tensor step_size,
                   Tensor top_k, double clip_min, double clip_max, OptionalTensor active, OptionalTensor out,
                   OptionalTensor mean, OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, 0, eps_of, step_size, clip_min, clip_max, {}, active, out, mean, std});
  step.job.top_k = step.size_of("top_k", 0, top_k, ScalarType::Long);
  step.run(kernel);
}

// The registrations for one device.
template <class Device, class Library> void register_step_operators(Library& m) {
  m.impl("pgd_step_linf_", TORCH_BOX((&pgd_step_<&Device::linf, true>)));
  m.impl("pgd_step_l2_", TORCH_BOX((&pgd_step_<&Device::l2, false>)));
  m.impl("pgd_step_l1_", TORCH_BOX((&pgd_step_l1_<&Device::l1>)));
  m.impl("momentum_step_linf_", TORCH_BOX((&momentum_step_linf_<&Device::momentum_linf>)));
  m.impl("apgd_step_linf_", TORCH_BOX((&apgd_step_<&Device::apgd_linf, true>)));
  m.impl("apgd_step_l2_", TORCH_BOX((&apgd_step_<&Device::apgd_l2, false>)));
  m.impl("apgd_step_l1_", TORCH_BOX((&apgd_step_l1_<&Device::l1>)));
}

}  // namespace sat_kernels
