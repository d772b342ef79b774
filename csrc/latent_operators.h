// The operators of perturbed activations, apart from where they run.
//
// `Device` runs kernels over dense memory with elements:
//   void latent(LatentPass, const LatentJob&, const Tensor& z)
#pragma once

#include <string>
#include <string_view>

#include "latent.h"
#include "samples.h"

namespace sat_kernels {

// The activation as operators are given it: a and b, or, where they are learnable, a_of and b_of.
struct ActivationArguments {
  const std::string& name;
  double a, b;
  const OptionalTensor &a_of, &b_of;
};

// For tensors like `input`, of which dimension 1 has `channels` elements.
inline ActivationOf activation_of(const ActivationArguments& given, const Tensor& input, int64_t channels) {
  struct Row {
    std::string_view name;
    int parameters;
  };
  static constexpr Row rows[] = {
#define SK_FIXED(name, ...) {#name, 0},
#define SK_LEARNABLE(name, Formula, ...) {#name, kParameters<Formula<float>>},
      SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
  };
  ActivationOf f{Activation::count, {given.a, given.b}, {}, 1};
  for (int i = 0; i < int(Activation::count); ++i) {
    if (rows[i].name == given.name) f.which = Activation(i);
  }
  STD_TORCH_CHECK(f.which != Activation::count, "activation: '", given.name, "' is none of the package's");
  const int parameters = rows[int(f.which)].parameters;
  const OptionalTensor* of[kMostNumbers] = {&given.a_of, &given.b_of};
  for (int k = 0; k < kMostNumbers; ++k) {
    STD_TORCH_CHECK(of[k]->has_value() == (k < parameters), "activation: '", given.name, "' has ", parameters,
                    " learnable numbers: expected so many of a_of and b_of");
    if (k >= parameters) continue;
    const Tensor& p = **of[k];
    STD_TORCH_CHECK((p.numel() == 1 || p.numel() == channels) && (k == 0 || p.numel() == f.channels),
                    "a_of, b_of: expected one element in each, or one for each channel");
    STD_TORCH_CHECK(p.device() == input.device() && p.is_contiguous() && p.scalar_type() == opmath_of(input),
                    "a_of, b_of: expected contiguous tensors on the input's device, float64 for float64, else float32");
    f.parameters[k] = p.const_data_ptr();
    f.channels = p.numel();
  }
  return f;
}

inline void check_latent(const Tensor& z, const Tensor& delta) {
  dtype_of(z);
  check_like("delta", delta, "z", z);
  STD_TORCH_CHECK(delta.scalar_type() == opmath_of(z), "delta: expected float64 for a float64 z, else float32");
}
inline void check_latent_grad(const char* name, const Tensor& grad, const Tensor& z) {
  check_like(name, grad, "z", z);
  STD_TORCH_CHECK(grad.scalar_type() == z.scalar_type(), name, " differs in dtype from z: expected the same");
}

// f(z + delta), or grad f'(z + delta), where there is a grad.
template <class Device>
Tensor latent(const OptionalTensor& grad, Tensor z, Tensor delta, const ActivationArguments& f) {
  check_latent(z, delta);
  if (grad) check_latent_grad("grad", *grad, z);
  z = dense(z);
  delta = laid_out_as(z, delta);
  Tensor out = torch::stable::empty_like(z), kept;
  const int64_t channels = channels_of(z), size = z.numel();
  LatentJob job{};
  job.f = activation_of(f, z, channels);
  if (size == 0) return out;
  if (grad) {
    kept = laid_out_as(z, *grad);
    job.grad = kept.const_data_ptr();
  }
  job.z = z.const_data_ptr();
  job.delta = const_cast<void*>(delta.const_data_ptr());
  job.out = out.mutable_data_ptr();
  // No size depends on a sample.
  job.samples = 1;
  job.sample_size = size;
  job.channels = channels;
  job.inner = channels > 1 ? z.strides()[1] : size;
  Device::latent(grad ? LatentPass::backward : LatentPass::forward, job, z);
  return out;
}

template <class Device>
Tensor act_perturbed(Tensor z, Tensor delta, std::string activation, double a, double b, OptionalTensor a_of,
                     OptionalTensor b_of) {
  return latent<Device>({}, z, delta, {activation, a, b, a_of, b_of});
}
template <class Device>
Tensor act_perturbed_backward(Tensor grad, Tensor z, Tensor delta, std::string activation, double a, double b,
                              OptionalTensor a_of, OptionalTensor b_of) {
  return latent<Device>(grad, z, delta, {activation, a, b, a_of, b_of});
}

template <class Device, LatentPass pass>
void act_backward_pgd_step_(Tensor grad, Tensor z, Tensor delta, std::string activation, double a, double b,
                            OptionalTensor a_of, OptionalTensor b_of, double eps, double alpha, OptionalTensor eps_of,
                            OptionalTensor alpha_of, double lo, double hi, OptionalTensor lo_of, OptionalTensor hi_of,
                            OptionalTensor grad_z) {
  check_latent(z, delta);
  check_latent_grad("grad", grad, z);
  if (grad_z) check_latent_grad("grad_z", *grad_z, z);
  Tensor target = dense(delta), out;
  const ScalarType dtype = delta.scalar_type();
  LatentJob job{};
  job.f = activation_of({activation, a, b, a_of, b_of}, z, channels_of(z));
  job.eps = size_for(delta, "eps_of", eps, eps_of, dtype);
  job.alpha = size_for(delta, "alpha_of", alpha, alpha_of, dtype);
  job.lo = size_for(delta, "lo_of", lo, lo_of, dtype);
  job.hi = size_for(delta, "hi_of", hi, hi_of, dtype);
  STD_TORCH_CHECK(pass != LatentPass::l2 || (job.eps.per_channel == 0 && job.alpha.per_channel == 0),
                  "eps_of, alpha_of: expected (samples or 1, 1) numbers");
  if (delta.numel() == 0) return;
  const SampleLayout layout = lay_out_samples(target, false);
  job.samples = layout.samples;
  job.sample_size = layout.sample_size;
  job.channels = layout.channels;
  job.inner = layout.inner;
  const Tensor values = laid_out_as(target, z), grads = laid_out_as(target, grad);
  job.grad = grads.const_data_ptr();
  job.z = values.const_data_ptr();
  job.delta = target.mutable_data_ptr();
  if (grad_z) {
    out = same_layout(target, *grad_z) ? *grad_z : empty_like(target, z.scalar_type());
    job.out = out.mutable_data_ptr();
  }
  Device::latent(pass, job, z);
  if (target.get() != delta.get()) torch::stable::copy_(delta, target);
  if (grad_z && out.get() != grad_z->get()) torch::stable::copy_(*grad_z, out);
}

// The registrations for one device.
template <class Device, class Library> void register_latent_operators(Library& m) {
  m.impl("act_perturbed", TORCH_BOX((&act_perturbed<Device>)));
  m.impl("act_perturbed_backward", TORCH_BOX((&act_perturbed_backward<Device>)));
  m.impl("act_backward_pgd_step_linf_", TORCH_BOX((&act_backward_pgd_step_<Device, LatentPass::linf>)));
  m.impl("act_backward_pgd_step_l2_", TORCH_BOX((&act_backward_pgd_step_<Device, LatentPass::l2>)));
}

}  // namespace sat_kernels
