// The operators on the CPU: choice of the kernels, threads.
#include "../operators.h"
#include "../storage.h"
#include "dispatch.h"
#include "kernels.h"

namespace sat_kernels::cpu {

SK_FOR_THIS_MACHINE(Kernels, kernels)

namespace {

// Elements per task: about 10 us of work. It does not depend on the number of threads, so sums do not either.
constexpr int64_t kGrain = 16384;

// Likewise for sums, of which each task has one per channel and parameter: at most two bytes for each element.
int64_t sum_grain(int64_t channels) { return std::max(kGrain, 8 * channels); }

struct Cpu {
  static void run(Activation activation, Pass pass, const Tensor& input, const Elementwise& job) {
    const auto kernel = kernels().activation[int(activation)][int(pass)][int(dtype_of(input))];
    if (pass == Pass::parameter_backward) return run_with_sums(kernel, input, job);
    torch::stable::parallel_for(0, input.numel(), kGrain,
                                [&](int64_t begin, int64_t end) { kernel(job, begin, end, nullptr); });
  }

  static void run_with_sums(ElementwiseKernel kernel, const Tensor& input, const Elementwise& job) {
    const int64_t size = input.numel(), grain = sum_grain(job.channels), tasks = (size + grain - 1) / grain;
    int parameters = 0;
    while (parameters < kMostNumbers && job.parameters[parameters] != nullptr) ++parameters;
    const int64_t width = parameters * job.channels;
    std::vector<double> sums(tasks * width);
    torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        kernel(job, task * grain, std::min(size, (task + 1) * grain), sums.data() + task * width);
      }
    });
    for (int64_t i = 0; i < width; ++i) {
      double total = 0;
      for (int64_t task = 0; task < tasks; ++task) total += sums[task * width + i];
      void* grad = job.parameter_grads[i / job.channels];
      if (dtype_of(input) == DType::float64) {
        static_cast<double*>(grad)[i % job.channels] = total;
      } else {
        static_cast<float*>(grad)[i % job.channels] = float(total);
      }
    }
  }
};

}  // namespace
}  // namespace sat_kernels::cpu

STABLE_TORCH_LIBRARY_IMPL(sat_kernels, CPU, m) {
  if (!sat_kernels::cpu::left_to_triton()) sat_kernels::register_operators<sat_kernels::cpu::Cpu>(m);
}
