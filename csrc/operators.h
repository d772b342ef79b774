// The activations' operators, apart from where they run: checks, layouts, allocation.
//
// `Device` runs kernels over dense memory:
//   void run(Activation, Pass, const Tensor& input, Elementwise)
#pragma once

#include "elementwise.h"
#include "tensors.h"

namespace sat_kernels {

inline void take(Elementwise& job, int i, const Tensor&, double number) { job.numbers[i] = number; }
inline void take(Elementwise& job, int i, const Tensor& input, const Tensor& parameter) {
  const int64_t channels = parameter.numel();
  STD_TORCH_CHECK(channels == 1 || (input.sizes().size() > 1 && input.sizes()[1] == channels),
                  "parameters: expected one element, or as many as input has channels (dimension 1)");
  STD_TORCH_CHECK(i == 0 || channels == job.channels, "parameters: expected as many elements in each");
  STD_TORCH_CHECK(parameter.device() == input.device() && parameter.is_contiguous() &&
                      parameter.scalar_type() == opmath_of(input),
                  "parameters: expected contiguous tensors on input's device, float64 for float64, else float32");
  job.parameters[i] = parameter.const_data_ptr();
  job.channels = channels;
  if (channels > 1) job.inner = input.strides()[1];
}

// `input` is dense.
template <class... Numbers> Elementwise job_of(const Tensor& input, const Numbers&... numbers) {
  Elementwise job{};
  job.channels = job.inner = 1;
  int i = 0;
  (take(job, i++, input, numbers), ...);
  return job;
}

inline void check_grad(const char* name, const Tensor& grad, const Tensor& input) {
  check_like(name, grad, "input", input);
  STD_TORCH_CHECK(grad.scalar_type() == input.scalar_type(), name, " differs in dtype from input: expected the same");
}

template <class Device, Activation A, class... Numbers> Tensor forward(Tensor input, Numbers... numbers) {
  input = dense(input);
  Tensor out = torch::stable::empty_like(input);
  Elementwise job = job_of(input, numbers...);
  job.input = input.const_data_ptr();
  job.out = out.mutable_data_ptr();
  Device::run(A, Pass::forward, input, job);
  return out;
}

template <class Device, Activation A, class... Numbers> void forward_(Tensor input, Numbers... numbers) {
  Tensor values = dense(input);
  Elementwise job = job_of(values, numbers...);
  job.input = job.out = values.mutable_data_ptr();
  Device::run(A, Pass::forward, values, job);
  if (values.get() != input.get()) torch::stable::copy_(input, values);
}

template <class Device, Activation A, class... Numbers>
Tensor backward(Tensor grad, Tensor input, Numbers... numbers) {
  check_grad("grad_output", grad, input);
  input = dense(input);
  grad = laid_out_as(input, grad);
  Tensor out = torch::stable::empty_like(input);
  Elementwise job = job_of(input, numbers...);
  job.grad = grad.const_data_ptr();
  job.input = input.const_data_ptr();
  job.out = out.mutable_data_ptr();
  Device::run(A, Pass::backward, input, job);
  return out;
}

template <class Device, Activation A, class... Numbers>
std::tuple<Tensor, Tensor> double_backward(Tensor grad_grad, Tensor grad, Tensor input, Numbers... numbers) {
  check_grad("grad_grad_input", grad_grad, input);
  check_grad("grad_output", grad, input);
  input = dense(input);
  grad_grad = laid_out_as(input, grad_grad);
  grad = laid_out_as(input, grad);
  Tensor grad_out = torch::stable::empty_like(input), out = torch::stable::empty_like(input);
  Elementwise job = job_of(input, numbers...);
  job.grad_grad = grad_grad.const_data_ptr();
  job.grad = grad.const_data_ptr();
  job.input = input.const_data_ptr();
  job.grad_out = grad_out.mutable_data_ptr();
  job.out = out.mutable_data_ptr();
  Device::run(A, Pass::double_backward, input, job);
  return {grad_out, out};
}

template <class Device, Activation A, class... Parameters>
std::tuple<Tensor, Parameters...> parameter_backward(Tensor grad, Tensor input, Parameters... parameters) {
  check_grad("grad_output", grad, input);
  input = dense(input);
  grad = laid_out_as(input, grad);
  std::tuple<Tensor, Parameters...> result(torch::stable::empty_like(input), torch::stable::empty_like(parameters)...);
  Elementwise job = job_of(input, parameters...);
  job.grad = grad.const_data_ptr();
  job.input = input.const_data_ptr();
  std::apply(
      [&](Tensor& out, auto&... parameter_grads) {
        int i = 0;
        job.out = out.mutable_data_ptr();
        ((job.parameter_grads[i++] = parameter_grads.mutable_data_ptr()), ...);
      },
      result);
  Device::run(A, Pass::parameter_backward, input, job);
  return result;
}

// The registrations for one device.
template <class Device, class Library> void register_operators(Library& m) {
#define SK_FIXED(name, Formula, schema, ...)                                                            \
  m.impl(#name, TORCH_BOX((&forward<Device, Activation::name __VA_OPT__(, ) __VA_ARGS__>)));            \
  m.impl(#name "_", TORCH_BOX((&forward_<Device, Activation::name __VA_OPT__(, ) __VA_ARGS__>)));       \
  m.impl(#name "_backward", TORCH_BOX((&backward<Device, Activation::name __VA_OPT__(, ) __VA_ARGS__>))); \
  m.impl(#name "_double_backward",                                                                      \
         TORCH_BOX((&double_backward<Device, Activation::name __VA_OPT__(, ) __VA_ARGS__>)));
#define SK_LEARNABLE(name, Formula, schema, ...)     \
  SK_FIXED(name, Formula, schema, __VA_ARGS__)       \
  m.impl(#name "_parameter_backward", TORCH_BOX((&parameter_backward<Device, Activation::name, __VA_ARGS__>)));
  SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
#undef SK_FIXED
#undef SK_LEARNABLE
}

}  // namespace sat_kernels
