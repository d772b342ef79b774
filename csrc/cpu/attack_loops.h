// All of attacks' kernels, compiled once per instruction set: SK_TARGET names the namespace they go to.
#pragma once

#include "affine_act.h"
#include "attacks.h"
#include "conv_act.h"
#include "latent.h"
#include "linf.h"
#include "losses.h"
#include "starts.h"
#include "state.h"
#include "steps.h"
#include "winograd.h"

namespace sat_kernels::cpu::SK_TARGET {

const AttackKernels& attack_kernels() {
  static const AttackKernels kernels = [] {
    AttackKernels k{};
    add_linf(k.steps);
    add_norms(k.steps);
    k.losses = loss_kernels();
    k.starts = start_kernels();
    k.state = state_kernels();
    k.latent = latent_kernels();
    k.conv = {&conv_forward, &conv_step};
    k.affine_act = affine_act_kernels();
    k.winograd = winograd_kernels();
    return k;
  }();
  return kernels;
}

}  // namespace sat_kernels::cpu::SK_TARGET
