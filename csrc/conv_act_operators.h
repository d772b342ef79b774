// The operators of a network's first layer, apart from where they run.
//
// `Device` runs kernels where there is something to do:
//   void conv_forward(const ConvForward&, const Tensor& x), void conv_step(const ConvStep&, const Tensor& x_adv)
#pragma once

#include "conv_act.h"
#include "latent_operators.h"

namespace sat_kernels {

inline Images images(const Tensor& t) {
  const auto s = t.strides();
  return {const_cast<void*>(t.const_data_ptr()), dtype_of(t), s[0], s[1], s[2], s[3]};
}

inline void check_images(const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.sizes().size() == 4 && t.scalar_type() == ScalarType::Float, name, ": expected float32 (B, C, H, W)");
}

inline void check_numbers(const char* name, const Tensor& t, int64_t size, const Tensor& x) {
  STD_TORCH_CHECK(t.numel() == size && t.is_contiguous() && t.scalar_type() == ScalarType::Float && t.device() == x.device(),
                  name, ": expected ", size, " contiguous float32 numbers on x's device");
}

inline ConvAct conv_act_of(const Tensor& x, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& mean,
                           int64_t stride, int64_t padding, const ActivationArguments& f) {
  check_images("weight", weight);
  const auto in = x.sizes(), w = weight.sizes();
  STD_TORCH_CHECK(in[1] >= 1 && in[1] <= kMostImageChannels && w[1] == in[1], "x has ", in[1], " channels and weight ",
                  w[1], ": expected as many in both, 1 to ", kMostImageChannels);
  STD_TORCH_CHECK(stride >= 1 && padding >= 0, "stride=", stride, ", padding=", padding,
                  ": expected a stride >= 1 and a padding >= 0");
  const int64_t height = in[2] + 2 * padding - w[2], width = in[3] + 2 * padding - w[3];
  STD_TORCH_CHECK(w[2] >= 1 && w[3] >= 1 && height >= 0 && width >= 0, "weight is ", w[2], " x ", w[3],
                  ": expected at most the size of the padded x, and at least 1 x 1");
  ConvAct layer{};
  layer.size = {in[0], in[1], in[2], in[3], w[0], height / stride + 1, width / stride + 1, w[2], w[3], stride, padding};
  check_numbers("weight", weight, weight.numel(), x);
  layer.weight = static_cast<const float*>(weight.const_data_ptr());
  if (bias) {
    check_numbers("bias", *bias, w[0], x);
    layer.bias = static_cast<const float*>(bias->const_data_ptr());
  }
  if (mean) {
    check_numbers("mean", *mean, in[1], x);
    layer.mean = static_cast<const float*>(mean->const_data_ptr());
  }
  layer.f = activation_of(f, x, w[0]);
  return layer;
}

template <class Device>
std::tuple<Tensor, Tensor> conv_act(Tensor x, Tensor weight, OptionalTensor bias, OptionalTensor mean, int64_t stride,
                                    int64_t padding, std::string activation, double a, double b, OptionalTensor a_of,
                                    OptionalTensor b_of, int64_t dtype, bool keep_z) {
  check_images("x", x);
  ConvForward job{};
  job.layer = conv_act_of(x, weight, bias, mean, stride, padding, {activation, a, b, a_of, b_of});
  const ConvGeometry& size = job.layer.size;
  const ScalarType types[] = {ScalarType::Float, ScalarType::Double, ScalarType::BFloat16, ScalarType::Half};
  STD_TORCH_CHECK(dtype == int(DType::float32) || dtype == int(DType::bfloat16) || dtype == int(DType::float16),
                  "dtype=", dtype, ": expected float32, bfloat16 or float16");
  // In x's order of dimensions, as torch's convolutions.
  using Order = std::array<size_t, 4>;
  const Order order = !x.is_contiguous() && x.strides()[1] == 1 ? Order{0, 2, 3, 1} : Order{0, 1, 2, 3};
  const std::array<int64_t, 4> sizes{size.samples, size.filters, size.out_height, size.out_width};
  const auto make = [&] { return empty_in_order(x, sizes, order, types[dtype]); };
  Tensor y = make(), z = keep_z ? make() : contiguous_empty(x, {0}, types[dtype]);
  if (y.numel() == 0) return {y, z};
  job.x = images(x);
  job.y = images(y);
  if (keep_z) job.z = images(z);
  Device::conv_forward(job, x);
  return {y, z};
}

template <class Device>
void conv_act_backward_pgd_step_(Tensor grad, Tensor x_adv, Tensor x, OptionalTensor z, Tensor weight, OptionalTensor bias,
                                 OptionalTensor mean, int64_t stride, int64_t padding, std::string activation, double a,
                                 double b, OptionalTensor a_of, OptionalTensor b_of, double eps, double alpha,
                                 OptionalTensor eps_of, OptionalTensor alpha_of, double clip_min, double clip_max,
                                 int64_t steps) {
  check_images("x_adv", x_adv);
  check_images("x", x);
  check_like("x", x, "x_adv", x_adv);
  ConvStep job{};
  job.layer = conv_act_of(x_adv, weight, bias, mean, stride, padding, {activation, a, b, a_of, b_of});
  const ConvGeometry& size = job.layer.size;
  const auto check = [&](const char* name, const Tensor& t) {
    const auto s = t.sizes();
    STD_TORCH_CHECK(s.size() == 4 && s[0] == size.samples && s[1] == size.filters && s[2] == size.out_height &&
                        s[3] == size.out_width && t.device() == x_adv.device() && dtype_of(t) != DType::float64,
                    name, ": expected the layer's output on x_adv's device, float32, bfloat16 or float16");
  };
  check("grad", grad);
  STD_TORCH_CHECK(steps >= 0 && (!z || steps == 1), "steps=", steps, ": expected a number >= 0, and 1 where z is given");
  if (z) {
    check("z", *z);
    STD_TORCH_CHECK(z->scalar_type() == grad.scalar_type(), "z differs in dtype from grad: expected the same");
  }
  job.eps = size_for(x_adv, "eps_of", eps, eps_of, ScalarType::Float);
  job.alpha = size_for(x_adv, "alpha_of", alpha, alpha_of, ScalarType::Float);
  job.lowest = clip_min;
  job.highest = clip_max;
  job.steps = steps;
  if (x_adv.numel() == 0 || steps == 0) return;
  job.grad = images(grad);
  if (z) job.z = images(*z);
  job.x = images(x);
  job.x_adv = images(x_adv);
  Device::conv_step(job, x_adv);
}

// The registrations for one device.
template <class Device, class Library> void register_conv_act_operators(Library& m) {
  m.impl("conv_act", TORCH_BOX((&conv_act<Device>)));
  m.impl("conv_act_backward_pgd_step_", TORCH_BOX((&conv_act_backward_pgd_step_<Device>)));
}

}  // namespace sat_kernels
