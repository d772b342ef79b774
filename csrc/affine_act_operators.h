// The operators of what follows a convolution, apart from where they run.
//
// `Device` runs kernels over dense memory with elements:
//   void affine_act(Pass, const AffineAct&, const Tensor& sum)
#pragma once

#include "affine_act.h"
#include "latent_operators.h"

namespace sat_kernels {

inline const void* of_channels(const char* name, const OptionalTensor& t, const Tensor& input, int64_t channels) {
  if (!t) return nullptr;
  STD_TORCH_CHECK(t->numel() == channels && input.sizes().size() > 1, name,
                  ": expected one element for each of the input's channels (dimension 1)");
  STD_TORCH_CHECK(t->device() == input.device() && t->is_contiguous() && t->scalar_type() == opmath_of(input), name,
                  ": expected a contiguous tensor on the input's device, float64 for float64, else float32");
  return t->const_data_ptr();
}

// `sum` is dense.
inline AffineAct affine_act_job(const Tensor& sum, const OptionalTensor& scale, const OptionalTensor& shift,
                                const ActivationArguments& f) {
  AffineAct job{};
  job.channels = channels_of(sum);
  job.f = activation_of(f, sum, job.channels);
  job.scale = of_channels("scale", scale, sum, job.channels);
  job.shift = of_channels("shift", shift, sum, job.channels);
  job.size = sum.numel();
  job.inner = job.channels > 1 ? sum.strides()[1] : job.size;
  return job;
}

inline void check_addend(const char* name, const Tensor& t, const char* reference_name, const Tensor& reference) {
  check_like(name, t, reference_name, reference);
  STD_TORCH_CHECK(t.scalar_type() == reference.scalar_type(), name, " differs in dtype from ", reference_name,
                  ": expected the same");
}

template <class Device>
Tensor affine_act_(Tensor input, OptionalTensor bias, OptionalTensor residual, OptionalTensor scale,
                   OptionalTensor shift, std::string activation, double a, double b, OptionalTensor a_of,
                   OptionalTensor b_of) {
  dtype_of(input);
  if (residual) check_addend("residual", *residual, "input", input);
  Tensor sum = dense(input), kept;
  AffineAct job = affine_act_job(sum, scale, shift, {activation, a, b, a_of, b_of});
  job.bias = of_channels("bias", bias, sum, job.channels);
  Tensor out = torch::stable::empty_like(sum);
  if (job.size == 0) return out;
  if (residual) {
    kept = laid_out_as(sum, *residual);
    job.residual = kept.const_data_ptr();
  }
  job.sum = bias || residual ? sum.mutable_data_ptr() : const_cast<void*>(sum.const_data_ptr());
  job.out = out.mutable_data_ptr();
  Device::affine_act(Pass::forward, job, sum);
  if (sum.get() != input.get() && (bias || residual)) torch::stable::copy_(input, sum);
  return out;
}

template <class Device>
Tensor affine_act_backward(Tensor grad, Tensor sum, OptionalTensor grad_sum, OptionalTensor scale, OptionalTensor shift,
                           std::string activation, double a, double b, OptionalTensor a_of, OptionalTensor b_of) {
  dtype_of(sum);
  check_addend("grad", grad, "sum", sum);
  if (grad_sum) check_addend("grad_sum", *grad_sum, "sum", sum);
  sum = dense(sum);
  AffineAct job = affine_act_job(sum, scale, shift, {activation, a, b, a_of, b_of});
  Tensor out = torch::stable::empty_like(sum), kept;
  if (job.size == 0) return out;
  grad = laid_out_as(sum, grad);
  if (grad_sum) {
    kept = laid_out_as(sum, *grad_sum);
    job.grad_sum = kept.const_data_ptr();
  }
  job.grad = grad.const_data_ptr();
  job.sum = const_cast<void*>(sum.const_data_ptr());
  job.out = out.mutable_data_ptr();
  Device::affine_act(Pass::backward, job, sum);
  return out;
}

// The registrations for one device.
template <class Device, class Library> void register_affine_act_operators(Library& m) {
  m.impl("affine_act_", TORCH_BOX((&affine_act_<Device>)));
  m.impl("affine_act_backward", TORCH_BOX((&affine_act_backward<Device>)));
}

}  // namespace sat_kernels
