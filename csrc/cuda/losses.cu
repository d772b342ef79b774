// Losses of rows of logits: a block for each row, of a warp for few classes.
#include "losses.h"

#include "../formulas/losses.h"
#include "team.cuh"

namespace sat_kernels::cuda {
namespace {

constexpr int64_t kMostRoom = int64_t(1) << 28;

// The largest block, and the logits that each of its threads holds in registers, of which 128 are left for it.
constexpr int kRowThreads = 512;
constexpr int held(LossFamily family) { return family == LossFamily::divergence ? 4 : 8; }

template <LossFamily family, class S, int Slots>
__global__ void __launch_bounds__(kRowThreads, 1) losses(LossJob job, char* room, int64_t bytes) {
  for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
    row_loss<family, S>(Team<Slots>(room + blockIdx.x * bytes), job, row);
  }
}

bool in_registers(const LossJob& job) { return job.classes <= held(family_of(job.loss)) * kRowThreads; }

// Of a block: 8 bytes for each class and number that is held.
int64_t block_room(const LossJob& job) {
  return in_registers(job) ? 0 : job.classes * (family_of(job.loss) == LossFamily::divergence ? 16 : 8);
}

int64_t blocks_of(const LossJob& job) {
  const int64_t bytes = block_room(job), most = bytes == 0 ? int64_t(1) << 20 : std::max<int64_t>(1, kMostRoom / bytes);
  return std::min(job.rows, most);
}

template <LossFamily family, class S> void run(const LossJob& job, char* room, cudaStream_t stream) {
  const dim3 grid(unsigned(blocks_of(job)));
  if (in_registers(job)) {
    const int threads = int(divided_up(divided_up(job.classes, held(family)), kWarp) * kWarp);
    launch(losses<family, S, held(family)>, grid, threads, stream, job, room, int64_t(0));
  } else {
    launch(losses<family, S, 0>, grid, kRowThreads, stream, job, room, block_room(job));
  }
}

template <class S> void run_type(const LossJob& job, char* room, cudaStream_t stream) {
  switch (family_of(job.loss)) {
    case LossFamily::softmax: return run<LossFamily::softmax, S>(job, room, stream);
    case LossFamily::ranking: return run<LossFamily::ranking, S>(job, room, stream);
    default: return run<LossFamily::divergence, S>(job, room, stream);
  }
}

}  // namespace

int64_t loss_room(const LossJob& job) { return blocks_of(job) * block_room(job); }

void run_losses(const LossJob& job, DType type, void* room, cudaStream_t stream) {
  char* bytes = static_cast<char*>(room);
  switch (type) {
    case DType::float64: return run_type<double>(job, bytes, stream);
    case DType::bfloat16: return run_type<__nv_bfloat16>(job, bytes, stream);
    case DType::float16: return run_type<__half>(job, bytes, stream);
    default: return run_type<float>(job, bytes, stream);
  }
}

}  // namespace sat_kernels::cuda
