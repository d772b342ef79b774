// The operators on the CPU: choice of the kernels, threads.
#include "../operators.h"
#include "../storage.h"
#include "kernels.h"

#include <cstdlib>
#include <string>

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

// SAT_KERNELS_CPU_CAPABILITY=baseline or avx2 asks for less than the machine has, so that it can be tested.
const Kernels& kernels() {
#if defined(__x86_64__)
  const auto choose = []() -> const Kernels& {
    const char* set = std::getenv("SAT_KERNELS_CPU_CAPABILITY");
    const std::string wanted = set == nullptr ? "" : set;
    if (wanted == "baseline") return baseline::kernels();
    if (wanted != "avx2" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      return avx512::kernels();
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2::kernels() : baseline::kernels();
  };
  static const Kernels& best = choose();
  return best;
#else
  return baseline::kernels();
#endif
}

namespace {

// Elements per task: about 10 us of work. It does not depend on the number of threads, so sums do not either.
constexpr int64_t kGrain = 16384;

double number(double value) { return value; }
double number(const Tensor& t) {
  STD_TORCH_CHECK(t.numel() == 1 && t.is_cpu(), "a learnable number is a CPU tensor of one element");
  return with_type(dtype_of(t), [&](auto* type) {
    using S = std::remove_pointer_t<decltype(type)>;
    return double(load(*static_cast<const S*>(t.const_data_ptr())));
  });
}

struct Cpu {
  template <class... Numbers> static Elementwise take(const Numbers&... numbers) {
    Elementwise job{};
    int i = 0;
    ((job.numbers[i++] = number(numbers)), ...);
    return job;
  }

  static void run(Activation activation, Pass pass, const Tensor& input, const Elementwise& job) {
    const auto kernel = kernels().activation[int(activation)][int(pass)][int(dtype_of(input))];
    torch::stable::parallel_for(0, input.numel(), kGrain,
                                [&](int64_t begin, int64_t end) { kernel(job, begin, end); });
  }

  static void run_with_parameter(Activation activation, const Tensor& input, const Elementwise& job,
                                 Tensor& parameter_grad) {
    const auto kernel = kernels().activation[int(activation)][int(Pass::parameter_backward)][int(dtype_of(input))];
    const int64_t size = input.numel();
    std::vector<double> sums((size + kGrain - 1) / kGrain);
    torch::stable::parallel_for(0, int64_t(sums.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        sums[task] = kernel(job, task * kGrain, std::min(size, (task + 1) * kGrain));
      }
    });
    double total = 0;
    for (double sum : sums) total += sum;
    with_type(dtype_of(parameter_grad), [&](auto* type) {
      using S = std::remove_pointer_t<decltype(type)>;
      *static_cast<S*>(parameter_grad.mutable_data_ptr()) = store<S>(Opmath<S>(total));
    });
  }

  static void step_linf(const Tensor& x_adv, DType grad, const Step& step) {
    const auto kernel = kernels().step_linf[int(dtype_of(x_adv))][int(grad)];
    torch::stable::parallel_for(0, x_adv.numel(), kGrain,
                                [&](int64_t begin, int64_t end) { kernel(step, begin, end); });
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  using Device = sat_kernels::cpu::Cpu;
  SK_REGISTER(m, Device)
}
