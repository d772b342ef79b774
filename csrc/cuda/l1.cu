#include "../formulas/l1.h"

#include "norms.cuh"

namespace sat_kernels::cuda {
namespace {

// room: two numbers for each element, or null.
template <class T, class G, int Slots>
__global__ void __launch_bounds__(kMostThreads, 1) step_l1(const OptionsJob all, char* room) {
  const AttackStep& job = all.step;
  const int64_t size = job.sample_size, sample = blockIdx.x;
  with_sample<T, G>(all, [&](T* x_adv, const auto& gradient, const T* x, T alpha, const auto& ball) {
    const Size& k = job.top_k;
    const double top_k =
        k.of == nullptr ? k.number : double(read_one(static_cast<const int64_t*>(k.of) + sample * k.per_sample));
    const Team<Slots> team(room + sample * size * 16);
    l1_step(team, x_adv, gradient, x, size, alpha, top_k, job.skip_faces, ball);
  });
}

}  // namespace

void l1(const AttackStep& job, DType x, DType grad, void* room, cudaStream_t stream) {
  with_norm_types(x, grad, [&]<class T, class G>(T*, G*) {
    const TeamShape shape = team_for<T>(job.sample_size);
    const auto kernel = shape.in_registers ? step_l1<T, G, kSlots<T>> : step_l1<T, G, 0>;
    launch(kernel, dim3(unsigned(job.samples)), shape.threads, stream, OptionsJob(job, false), static_cast<char*>(room));
  });
}

int64_t l1_room(const AttackStep& job, DType x) {
  const int64_t size = job.sample_size;
  const TeamShape shape = x == DType::float64 ? team_for<double>(size) : team_for<float>(size);
  return shape.in_registers ? 0 : 16 * job.samples * size;
}

}  // namespace sat_kernels::cuda
