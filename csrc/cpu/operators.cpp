// The operators on the CPU: layouts, threads, and the choice of the kernel.
#include "../formulas/activations.h"
#include "../tensors.h"
#include "kernels.h"
#include "storage.h"

namespace sat_kernels::cpu {

namespace baseline {
const Kernels& kernels();
}
namespace avx2 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}

const Kernels& kernels() {
#if defined(__x86_64__)
  static const Kernels& best = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                                   ? avx512::kernels()
                               : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2::kernels()
                                                                                               : baseline::kernels();
  return best;
#else
  return baseline::kernels();
#endif
}

namespace {

// Elements per task: about 10 us of work. It does not depend on the number of threads, so sums do not either.
constexpr int64_t kGrain = 16384;

DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::Double: return DType::float64;
    case ScalarType::BFloat16: return DType::bfloat16;
    case ScalarType::Half: return DType::float16;
    default: break;
  }
  STD_TORCH_CHECK(false, "sat_kernels: expected a float32, float64, bfloat16 or float16 tensor");
  return DType::count;
}

ElementwiseKernel kernel_for(Activation activation, Pass pass, const Tensor& input) {
  return kernels().activation[int(activation)][int(pass)][int(dtype_of(input))];
}

void run(ElementwiseKernel kernel, const Elementwise& job, int64_t size) {
  torch::stable::parallel_for(0, size, kGrain, [&](int64_t begin, int64_t end) { kernel(job, begin, end); });
}

// Calls f with a null pointer to t's number type.
template <class F> auto with_dtype(const Tensor& t, const F& f) {
  switch (dtype_of(t)) {
    case DType::float64: return f(static_cast<double*>(nullptr));
    case DType::bfloat16: return f(static_cast<BFloat16*>(nullptr));
    case DType::float16: return f(static_cast<Half*>(nullptr));
    default: return f(static_cast<float*>(nullptr));
  }
}

double number(double value) { return value; }
double number(const Tensor& t) {
  STD_TORCH_CHECK(t.numel() == 1 && t.is_cpu(), "a learnable number is a CPU tensor of one element");
  return with_dtype(t, [&](auto* type) {
    using S = std::remove_pointer_t<decltype(type)>;
    return double(load(*static_cast<const S*>(t.const_data_ptr())));
  });
}

template <class... Numbers> Elementwise job_of(const Numbers&... numbers) {
  Elementwise job{};
  int i = 0;
  ((job.numbers[i++] = number(numbers)), ...);
  return job;
}

void check_grad(const char* name, const Tensor& grad, const Tensor& input) {
  check_like(name, grad, "input", input);
  STD_TORCH_CHECK(grad.scalar_type() == input.scalar_type(), name, " differs in dtype from input: expected the same");
}

template <Activation A, class... Numbers> Tensor forward(Tensor input, Numbers... numbers) {
  const auto kernel = kernel_for(A, Pass::forward, input);
  input = dense(input);
  Tensor out = torch::stable::empty_like(input);
  Elementwise job = job_of(numbers...);
  job.input = input.const_data_ptr();
  job.out = out.mutable_data_ptr();
  run(kernel, job, input.numel());
  return out;
}

template <Activation A, class... Numbers> void forward_(Tensor input, Numbers... numbers) {
  const auto kernel = kernel_for(A, Pass::forward, input);
  Tensor values = dense(input);
  Elementwise job = job_of(numbers...);
  job.input = job.out = values.mutable_data_ptr();
  run(kernel, job, values.numel());
  if (values.get() != input.get()) torch::stable::copy_(input, values);
}

template <Activation A, class... Numbers> Tensor backward(Tensor grad, Tensor input, Numbers... numbers) {
  const auto kernel = kernel_for(A, Pass::backward, input);
  check_grad("grad_output", grad, input);
  input = dense(input);
  grad = laid_out_as(input, grad);
  Tensor out = torch::stable::empty_like(input);
  Elementwise job = job_of(numbers...);
  job.grad = grad.const_data_ptr();
  job.input = input.const_data_ptr();
  job.out = out.mutable_data_ptr();
  run(kernel, job, input.numel());
  return out;
}

template <Activation A, class... Numbers>
std::tuple<Tensor, Tensor> double_backward(Tensor grad_grad, Tensor grad, Tensor input, Numbers... numbers) {
  const auto kernel = kernel_for(A, Pass::double_backward, input);
  check_grad("grad_grad_input", grad_grad, input);
  check_grad("grad_output", grad, input);
  input = dense(input);
  grad_grad = laid_out_as(input, grad_grad);
  grad = laid_out_as(input, grad);
  Tensor grad_out = torch::stable::empty_like(input), out = torch::stable::empty_like(input);
  Elementwise job = job_of(numbers...);
  job.grad_grad = grad_grad.const_data_ptr();
  job.grad = grad.const_data_ptr();
  job.input = input.const_data_ptr();
  job.grad_out = grad_out.mutable_data_ptr();
  job.out = out.mutable_data_ptr();
  run(kernel, job, input.numel());
  return {grad_out, out};
}

template <Activation A>
std::tuple<Tensor, Tensor> parameter_backward(Tensor grad, Tensor input, Tensor parameter) {
  const auto kernel = kernel_for(A, Pass::parameter_backward, input);
  check_grad("grad_output", grad, input);
  input = dense(input);
  grad = laid_out_as(input, grad);
  Tensor out = torch::stable::empty_like(input), parameter_grad = torch::stable::empty_like(parameter);
  Elementwise job = job_of(parameter);
  job.grad = grad.const_data_ptr();
  job.input = input.const_data_ptr();
  job.out = out.mutable_data_ptr();
  const int64_t size = input.numel();
  std::vector<double> sums((size + kGrain - 1) / kGrain);
  torch::stable::parallel_for(0, int64_t(sums.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      sums[task] = kernel(job, task * kGrain, std::min(size, (task + 1) * kGrain));
    }
  });
  double total = 0;
  for (double sum : sums) total += sum;
  with_dtype(parameter_grad, [&](auto* type) {
    using S = std::remove_pointer_t<decltype(type)>;
    *static_cast<S*>(parameter_grad.mutable_data_ptr()) = store<S>(Opmath<S>(total));
  });
  return {out, parameter_grad};
}

// Calls run_range(begin, end) over tasks of a step whose tensors lie as one dense x_adv does; x_adv itself is
// copied and written back if it is not dense.
template <class F> void run_step(Tensor& x_adv, const Tensor& grad, const Tensor& x, Step job, const F& task) {
  Tensor target = dense(x_adv);
  const Tensor g = laid_out_as(target, grad), clean = laid_out_as(target, x);
  job.x_adv = target.mutable_data_ptr();
  job.grad = g.const_data_ptr();
  job.x = clean.const_data_ptr();
  torch::stable::parallel_for(0, target.numel(), kGrain, [&](int64_t begin, int64_t end) { task(job, begin, end); });
  if (target.get() != x_adv.get()) torch::stable::copy_(x_adv, target);
}

StepKernel step_kernel_for(const Tensor& x_adv, const Tensor& grad, const Tensor& x) {
  check_like("grad", grad, "x_adv", x_adv);
  check_like("x", x, "x_adv", x_adv);
  const DType dtype = dtype_of(x_adv);
  STD_TORCH_CHECK(dtype == DType::float32 || dtype == DType::float64, "x_adv: expected float32 or float64");
  STD_TORCH_CHECK(x.scalar_type() == x_adv.scalar_type(), "x differs in dtype from x_adv: expected the same");
  return kernels().step_linf[int(dtype)][int(dtype_of(grad))];
}

void pgd_step_linf_(Tensor x_adv, Tensor grad, Tensor x, double eps, double alpha, double clip_min, double clip_max) {
  const StepKernel kernel = step_kernel_for(x_adv, grad, x);
  run_step(x_adv, grad, x, {nullptr, nullptr, nullptr, clip_min, clip_max},
           [&](const Step& job, int64_t begin, int64_t end) { kernel(job, eps, alpha, begin, end); });
}

void pgd_step_linf_per_sample_(Tensor x_adv, Tensor grad, Tensor x, Tensor eps, Tensor alpha, double clip_min,
                               double clip_max) {
  const StepKernel kernel = step_kernel_for(x_adv, grad, x);
  for (const Tensor& sizes : {eps, alpha}) {
    STD_TORCH_CHECK(sizes.numel() == x_adv.sizes()[0] && sizes.scalar_type() == x_adv.scalar_type(),
                    "eps, alpha: expected one number per sample, in x_adv's dtype");
  }
  if (x_adv.numel() == 0) return;
  // One call per sample, so that whatever the layout of the batch a sample's numbers meet its elements.
  const auto at = [](Tensor& t, int64_t i) { return number(torch::stable::narrow(t, 0, i, 1)); };
  for (int64_t b = 0; b < x_adv.sizes()[0]; ++b) {
    const auto sample = [b](Tensor& t) { return torch::stable::narrow(t, 0, b, 1); };
    Tensor target = sample(x_adv);
    const double radius = at(eps, b), step = at(alpha, b);
    run_step(target, sample(grad), sample(x), {nullptr, nullptr, nullptr, clip_min, clip_max},
             [&](const Step& job, int64_t begin, int64_t end) { kernel(job, radius, step, begin, end); });
  }
}

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  using namespace sat_kernels::cpu;
  using sat_kernels::Tensor;
#define SK_IMPL(name, ...)                                                                              \
  m.impl(#name, TORCH_BOX((&forward<Activation::name __VA_OPT__(, ) __VA_ARGS__>)));                    \
  m.impl(#name "_", TORCH_BOX((&forward_<Activation::name __VA_OPT__(, ) __VA_ARGS__>)));               \
  m.impl(#name "_backward", TORCH_BOX((&backward<Activation::name __VA_OPT__(, ) __VA_ARGS__>)));       \
  m.impl(#name "_double_backward", TORCH_BOX((&double_backward<Activation::name __VA_OPT__(, ) __VA_ARGS__>)));
#define SK_FIXED(name, Formula, schema, ...) SK_IMPL(name __VA_OPT__(, ) __VA_ARGS__)
#define SK_LEARNABLE(name, Formula, parameter) \
  SK_IMPL(name, Tensor)                        \
  m.impl(#name "_parameter_backward", TORCH_BOX((&parameter_backward<Activation::name>)));
  SK_ACTIVATIONS(SK_FIXED, SK_LEARNABLE)
  m.impl("pgd_step_linf_", TORCH_BOX(&pgd_step_linf_));
  m.impl("pgd_step_linf_per_sample_", TORCH_BOX(&pgd_step_linf_per_sample_));
}
