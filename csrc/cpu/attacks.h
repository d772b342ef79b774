// The CPU kernels of attacks: once per instruction set and chosen at run time, as those of the activations.
#pragma once

#include <cstddef>

#include "../affine_act.h"
#include "../conv_act.h"
#include "../losses.h"
#include "../starts.h"
#include "../state.h"
#include "../steps.h"
#include "../winograd.h"

namespace sat_kernels::cpu {

// Samples [begin, end). room: for what an algorithm holds.
using AttackStepKernel = void (*)(const AttackStep&, int64_t begin, int64_t end, void* room);

// Elements [begin, end) of all.
using LinfKernel = void (*)(const AttackStep&, int64_t begin, int64_t end);

struct StepKernels {
  LinfKernel linf[2][int(DType::count)];  // [float, double][dtype of the gradient]
  AttackStepKernel momentum_linf[2][int(DType::count)];
  LinfKernel apgd_linf[2][int(DType::count)];
  AttackStepKernel l2[2][int(DType::count)], l1[2][int(DType::count)], apgd_l2[2][int(DType::count)];
};

// Rows [begin, end).
using LossKernel = void (*)(const LossJob&, int64_t begin, int64_t end, void* room);

struct LossKernels {
  LossKernel of[int(LossFamily::count)][int(DType::count)];
};

// Samples [begin, end). room: 8 bytes for each element, and 32.
using StartKernel = void (*)(const RandomStart&, int64_t begin, int64_t end, void* room);

struct StartKernels {
  StartKernel start[2][4];  // [float, double][Noise]
};

struct StateKernels {
  void (*keep_best[2])(const KeepBest&, int64_t begin, int64_t end);          // [float, double]
  void (*apgd_update[2][3])(const ApgdUpdate&, int64_t begin, int64_t end);  // and [gradients of 2, 4, 8 bytes]
};

// Elements [begin, end) of all; of l2, samples, and room for 8 bytes for each element of one.
struct LatentKernels {
  void (*forward[int(DType::count)])(const LatentJob&, int64_t begin, int64_t end);  // [dtype of z]
  void (*backward[int(DType::count)])(const LatentJob&, int64_t begin, int64_t end);
  void (*linf[int(DType::count)])(const LatentJob&, int64_t begin, int64_t end);
  void (*l2[int(DType::count)])(const LatentJob&, int64_t begin, int64_t end, void* room);
};

// Samples [begin, end). room: see conv_room.h.
struct ConvKernels {
  void (*forward)(const ConvForward&, int64_t begin, int64_t end, void* room);
  void (*step)(const ConvStep&, int64_t begin, int64_t end, void* room);
};

// Elements [begin, end) of all.
struct AffineActKernels {
  void (*forward[int(DType::count)])(const AffineAct&, int64_t begin, int64_t end);
  void (*backward[int(DType::count)])(const AffineAct&, int64_t begin, int64_t end);
};

// See winograd.h. Filters and channels are multiples of `panel`; tiles are multiplied `together`, and a task has at most
// `at_once` of them.
struct WinogradKernels {
  int64_t panel, together, at_once;
  void (*weight[int(DType::count)])(const WinogradFilters&, int64_t begin, int64_t end, float* weights);
  void (*inputs[int(DType::count)])(const Winograd&, int64_t first, int64_t begin, int64_t end, float* inputs,
                                    int64_t step);
  void (*outputs[int(DType::count)])(const Winograd&, int64_t first, int64_t start, int64_t count, int64_t panel,
                                     const float* inputs, int64_t step, float* products);
};

struct AttackKernels {
  StepKernels steps;
  LossKernels losses;
  StartKernels starts;
  StateKernels state;
  LatentKernels latent;
  ConvKernels conv;
  AffineActKernels affine_act;
  WinogradKernels winograd;
};

// Those for this machine.
const AttackKernels& attack_kernels();

}  // namespace sat_kernels::cpu
