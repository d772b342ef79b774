// The state of attacks, apart from where it is kept.
//
// `Device` runs kernels over dense memory:
//   void keep_best(const Tensor& x_adv, const KeepBest&)
//   void apgd_update(const Tensor& x_adv, const Tensor& grad, const ApgdUpdate&)
#pragma once

#include <optional>

#include "state.h"
#include "tensors.h"

namespace sat_kernels {

// x_adv itself, or a copy in a layout that the kernels take: dense, sample after sample.
inline Tensor samples_apart(const Tensor& x_adv) {
  const int64_t samples = x_adv.sizes()[0];
  const bool apart = is_dense(x_adv) && (samples == 1 || x_adv.strides()[0] == x_adv.numel() / samples);
  return apart ? x_adv : torch::stable::contiguous(x_adv);
}

// A tensor that is changed, as the kernels take it.
struct Changed {
  Tensor original, taken;
  Changed(const Tensor& t, const Tensor& reference) : original(t), taken(laid_out_as(reference, t)) {}
  void* data() const { return taken.mutable_data_ptr(); }
  // Called once the kernel has run.
  void write_back() {
    if (taken.get() != original.get()) torch::stable::copy_(original, taken);
  }
};

inline void check_image(const char* name, const Tensor& t, const Tensor& x_adv) {
  check_like(name, t, "x_adv", x_adv);
  STD_TORCH_CHECK(t.scalar_type() == x_adv.scalar_type(), name, " differs in dtype from x_adv: expected the same");
}

inline void check_numbers(const char* name, const Tensor& t, ScalarType type, const Tensor& x_adv) {
  STD_TORCH_CHECK(t.sizes().size() == 1 && t.sizes()[0] == x_adv.sizes()[0] && t.is_contiguous() &&
                      t.scalar_type() == type && t.device() == x_adv.device(),
                  name, ": expected one number per sample, contiguous, of its dtype, on x_adv's device");
}

inline void check_x_adv(const Tensor& x_adv) {
  STD_TORCH_CHECK(x_adv.scalar_type() == ScalarType::Float || x_adv.scalar_type() == ScalarType::Double,
                  "x_adv: expected float32 or float64");
  STD_TORCH_CHECK(x_adv.sizes().size() > 0, "x_adv: expected (B, ...)");
}

template <class Device>
void keep_best_(Tensor best, Tensor best_loss, Tensor success, Tensor x_adv, Tensor loss, Tensor fooled) {
  check_x_adv(x_adv);
  check_image("best", best, x_adv);
  check_numbers("best_loss", best_loss, x_adv.scalar_type(), x_adv);
  check_numbers("loss", loss, x_adv.scalar_type(), x_adv);
  check_numbers("success", success, ScalarType::Bool, x_adv);
  check_numbers("fooled", fooled, ScalarType::Bool, x_adv);
  if (x_adv.sizes()[0] == 0) return;
  KeepBest job{};
  job.samples = x_adv.sizes()[0];
  job.sample_size = x_adv.numel() / job.samples;
  const Tensor target = samples_apart(best), now = laid_out_as(target, x_adv);
  job.best = target.mutable_data_ptr();
  job.x_adv = now.const_data_ptr();
  job.best_loss = best_loss.mutable_data_ptr();
  job.loss = loss.const_data_ptr();
  job.success = static_cast<bool*>(success.mutable_data_ptr());
  job.fooled = static_cast<const bool*>(fooled.const_data_ptr());
  Device::keep_best(target, job);
  if (target.get() != best.get()) torch::stable::copy_(best, target);
}

template <class Device>
void apgd_update_(Tensor x_adv, Tensor grad, Tensor best, Tensor best_grad, Tensor fooling, Tensor best_loss,
                  Tensor previous_loss, Tensor checkpoint_loss, Tensor step_size, Tensor rises, Tensor reduced,
                  Tensor success, std::optional<Tensor> top_k, std::optional<Tensor> sparsity, Tensor largest_step,
                  Tensor loss, Tensor fooled, std::optional<Tensor> x, int64_t checkpoint, int64_t few_rises) {
  check_x_adv(x_adv);
  check_like("grad", grad, "x_adv", x_adv);
  check_like("best_grad", best_grad, "x_adv", x_adv);
  STD_TORCH_CHECK(grad.scalar_type() == best_grad.scalar_type(), "grad differs in dtype from the state's: expected the same");
  dtype_of(grad);
  check_image("best", best, x_adv);
  check_image("fooling", fooling, x_adv);
  for (const auto& [name, t] : {std::pair<const char*, const Tensor&>{"best_loss", best_loss},
                                {"previous_loss", previous_loss},
                                {"checkpoint_loss", checkpoint_loss},
                                {"step_size", step_size},
                                {"largest_step", largest_step},
                                {"loss", loss}}) {
    check_numbers(name, t, x_adv.scalar_type(), x_adv);
  }
  check_numbers("rises", rises, ScalarType::Long, x_adv);
  check_numbers("reduced", reduced, ScalarType::Bool, x_adv);
  check_numbers("success", success, ScalarType::Bool, x_adv);
  check_numbers("fooled", fooled, ScalarType::Bool, x_adv);
  STD_TORCH_CHECK(top_k.has_value() == x.has_value() && sparsity.has_value() == x.has_value(),
                  "x, top_k, sparsity: expected all of them, for L1, or none");
  if (x) {
    check_image("x", *x, x_adv);
    check_numbers("top_k", *top_k, ScalarType::Long, x_adv);
    check_numbers("sparsity", *sparsity, ScalarType::Long, x_adv);
  }
  if (x_adv.sizes()[0] == 0) return;
  ApgdUpdate job{};
  job.samples = x_adv.sizes()[0];
  job.sample_size = x_adv.numel() / job.samples;
  const Tensor target = samples_apart(x_adv);
  Changed gradient(grad, target), top(best, target), top_gradient(best_grad, target), fools(fooling, target);
  const Tensor clean = x ? laid_out_as(target, *x) : Tensor();
  job.x_adv = target.mutable_data_ptr();
  job.grad = gradient.data();
  job.best = top.data();
  job.best_grad = top_gradient.data();
  job.fooling = fools.data();
  job.loss = loss.const_data_ptr();
  job.best_loss = best_loss.mutable_data_ptr();
  job.previous_loss = previous_loss.mutable_data_ptr();
  job.checkpoint_loss = checkpoint_loss.mutable_data_ptr();
  job.step_size = step_size.mutable_data_ptr();
  job.largest_step = largest_step.const_data_ptr();
  job.rises = static_cast<int64_t*>(rises.mutable_data_ptr());
  job.reduced = static_cast<bool*>(reduced.mutable_data_ptr());
  job.success = static_cast<bool*>(success.mutable_data_ptr());
  job.fooled = static_cast<const bool*>(fooled.const_data_ptr());
  if (x) {
    job.x = clean.const_data_ptr();
    job.top_k = static_cast<int64_t*>(top_k->mutable_data_ptr());
    job.sparsity = static_cast<int64_t*>(sparsity->mutable_data_ptr());
  }
  job.checkpoint = checkpoint;
  job.few_rises = few_rises;
  Device::apgd_update(target, gradient.taken, job);
  if (target.get() != x_adv.get()) torch::stable::copy_(x_adv, target);
  for (Changed* changed : {&gradient, &top, &top_gradient, &fools}) changed->write_back();
}

// The registrations for one device.
template <class Device, class Library> void register_state_operators(Library& m) {
  m.impl("keep_best_", TORCH_BOX((&keep_best_<Device>)));
  m.impl("apgd_update_", TORCH_BOX((&apgd_update_<Device>)));
}

}  // namespace sat_kernels
