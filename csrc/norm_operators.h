// The steps that need sums over a sample, apart from where they run.
//
// `Device` runs kernels over dense memory, where there is any:
//   void l2(const PreparedStep&), void l1(const PreparedStep&), void apgd_l2(const PreparedStep&)
#pragma once

#include "step_operators.h"

namespace sat_kernels {

template <class Device>
void pgd_step_l2_(Tensor x_adv, OptionalTensor grad, Tensor x, double eps, double alpha, OptionalTensor eps_of,
                  OptionalTensor alpha_of, double clip_min, double clip_max, OptionalTensor mask, OptionalTensor active,
                  OptionalTensor out, OptionalTensor mean, OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std});
  if (step.empty()) return;
  Device::l2(step);
  step.finish();
}

// top_k_of: int64, (B or 1, 1).
template <class Device>
void pgd_step_l1_(Tensor x_adv, OptionalTensor grad, Tensor x, double eps, double alpha, OptionalTensor eps_of,
                  OptionalTensor alpha_of, double clip_min, double clip_max, OptionalTensor mask, OptionalTensor active,
                  OptionalTensor out, OptionalTensor mean, OptionalTensor std, int64_t top_k, OptionalTensor top_k_of) {
  PreparedStep step(x_adv, {grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std});
  step.job.top_k = step.size_of("top_k_of", double(top_k), top_k_of, ScalarType::Long);
  step.job.skip_faces = true;
  if (step.empty()) return;
  Device::l1(step);
  step.finish();
}

// step_size: (B or 1, 1).
template <class Device>
void apgd_step_l2_(Tensor x_adv, Tensor x_prev, Tensor grad, Tensor x, double eps, OptionalTensor eps_of,
                   Tensor step_size, bool first, double clip_min, double clip_max, OptionalTensor active,
                   OptionalTensor out, OptionalTensor mean, OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, 0, eps_of, step_size, clip_min, clip_max, {}, active, out, mean, std});
  step.job.x_prev = step.changed("x_prev", x_prev);
  step.job.first = first;
  if (step.empty()) return;
  Device::apgd_l2(step);
  step.finish();
}

// step_size, top_k: (B or 1, 1). AutoAttack's step, which does not look at the box's faces.
template <class Device>
void apgd_step_l1_(Tensor x_adv, Tensor grad, Tensor x, double eps, OptionalTensor eps_of, Tensor step_size,
                   Tensor top_k, double clip_min, double clip_max, OptionalTensor active, OptionalTensor out,
                   OptionalTensor mean, OptionalTensor std) {
  PreparedStep step(x_adv, {grad, x, eps, 0, eps_of, step_size, clip_min, clip_max, {}, active, out, mean, std});
  step.job.top_k = step.size_of("top_k", 0, top_k, ScalarType::Long);
  if (step.empty()) return;
  Device::l1(step);
  step.finish();
}

// The registrations for one device.
template <class Device, class Library> void register_norm_operators(Library& m) {
  m.impl("pgd_step_l2_", TORCH_BOX((&pgd_step_l2_<Device>)));
  m.impl("pgd_step_l1_", TORCH_BOX((&pgd_step_l1_<Device>)));
  m.impl("apgd_step_l2_", TORCH_BOX((&apgd_step_l2_<Device>)));
  m.impl("apgd_step_l1_", TORCH_BOX((&apgd_step_l1_<Device>)));
}

}  // namespace sat_kernels
