// What a loss is asked to do, on every device.
#pragma once

#include "elementwise.h"

namespace sat_kernels {

enum class Loss { ce, odds, cw, dlr, dlr_targeted, kl, mart, count };

// Losses that read other things of a row have kernels of their own.
enum class LossFamily { softmax, ranking, divergence, count };
constexpr LossFamily family_of(Loss loss) {
  return loss <= Loss::odds ? LossFamily::softmax : loss <= Loss::dlr_targeted ? LossFamily::ranking : LossFamily::divergence;
}

// (rows, classes) logits; a row's are neighbours in memory. loss, margin: float64 for float64, else float32.
struct LossJob {
  Loss loss;
  const void* logits;
  const void* clean;  // kl, mart: logits of the clean input
  int64_t row_stride, clean_row_stride;
  const int64_t* y;
  const int64_t* targets;  // dlr_targeted
  void* losses;
  bool* correct;
  void* margins;
  void* grad;  // null: not asked for; dense, in the dtype of the logits
  void* clean_grad;
  int64_t rows, classes;
  double beta;     // mart
  double largest;  // of the logits' dtype, at which gradients saturate
};

}  // namespace sat_kernels
