// What the kernels of a network's first layer are asked to do, on every device: f(z), z = conv2d(x - mean, weight) + bias.
#pragma once

#include "latent.h"

namespace sat_kernels {

constexpr int kMostImageChannels = 4;

// A (B, C, H, W) tensor of any strides, which are in elements.
struct Images {
  void* at;
  DType dtype;
  int64_t sample, channel, row, column;
};

// Padding adds `padding` zeros to x - mean on each side.
struct ConvGeometry {
  int64_t samples, channels, height, width;            // of x; at most kMostImageChannels channels
  int64_t filters, out_height, out_width;              // of z
  int64_t kernel_height, kernel_width, stride, padding;
};

struct ConvAct {
  ConvGeometry size;
  const float* weight;  // (filters, channels, kernel_height, kernel_width)
  const float* bias;    // (filters,), or null
  const float* mean;    // (channels,), or null
  ActivationOf f;       // its channels are the filters
};

struct ConvForward {
  ConvAct layer;
  Images x;     // float32
  Images y, z;  // float32, bfloat16 or float16; z.at may be null
};

// `steps` Linf steps from x_adv along the gradient there of sum(grad f(z)), each projected to the ball around x and to the box.
struct ConvStep {
  ConvAct layer;
  Images grad;      // float32, bfloat16 or float16
  Images z;         // at x_adv, of grad's type; or z.at is null, and it is computed
  Images x_adv, x;  // float32
  Size eps, alpha;  // per sample and image channel
  double lowest, highest;
  int64_t steps;    // 1 where z is given
};

}  // namespace sat_kernels
