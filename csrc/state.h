// What keeping the best point of an attack takes, on every device.
#pragma once

#include <cstdint>

namespace sat_kernels {

// Tensors for images are dense and in one layout; the others hold one number per sample, `T` that of the images' type.
struct KeepBest {
  void* best;         // images
  const void* x_adv;
  void* best_loss;    // T
  const void* loss;
  bool* success;
  const bool* fooled;
  int64_t samples, sample_size;
};

struct ApgdUpdate {
  void* x_adv;  // images
  void* grad;   // of grad_bytes each
  void* best;
  void* best_grad;
  void* fooling;
  const void* x;  // L1 only, else null
  const void* loss;    // T
  void* best_loss;
  void* previous_loss;
  void* checkpoint_loss;
  void* step_size;
  const void* largest_step;
  int64_t* rises;
  int64_t* top_k;     // L1 only
  int64_t* sparsity;  // L1 only
  bool* reduced;
  bool* success;
  const bool* fooled;
  int64_t samples, sample_size;
  int64_t checkpoint;  // steps since the last one, or 0: there is none now
  int64_t few_rises;   // at most so many of them are too few
};

}  // namespace sat_kernels
