// What a thread holds of a network's first layer, in floats: everything of one sample that its kernels reuse.
#pragma once

#include <algorithm>

#include "../conv_act.h"

namespace sat_kernels::cpu {

// Filters that are worked on together, and numbers of a vector: two of these for each filter are 12 of AVX2's 16 registers.
constexpr int64_t kFilters = 6, kLanes = 8;
// Filters that are copied together where they are neighbours in memory: whole parts of its cache lines.
constexpr int64_t kCopied = 24;

constexpr int64_t rounded_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// A stride s takes every s-th pixel of the padded image. So rows and columns are split by their place modulo s: then
// the convolution is one of stride 1, over kernels that are split likewise, and all that is read together lies together.
struct ConvRoom {
  int64_t rows, columns;        // of the padded image
  int64_t image_width;          // of a row of one phase of the padded image, or of its gradient
  int64_t back;                 // how far a kernel reaches back in a row of one phase
  int64_t out_size, out_width;  // of z of one filter; of a row of its gradient, with zeros around it
  int64_t weights;

  explicit ConvRoom(const ConvGeometry& g) {
    rows = g.height + 2 * g.padding;
    columns = g.width + 2 * g.padding;
    back = (g.kernel_width - 1) / g.stride;
    const int64_t phase = (columns + g.stride - 1) / g.stride;
    // Whole vectors are read and written beyond the ends of rows.
    image_width = std::max(phase + kLanes, rounded_up(g.out_width, 2 * kLanes) + back);
    out_size = g.out_height * g.out_width + 2 * kLanes;
    out_width = back + std::max(phase, g.out_width) + kLanes;
    weights = rounded_up(g.filters, kFilters) * g.channels * g.kernel_height * g.kernel_width;
    image = rows * g.stride * image_width * g.channels;
    planes = kFilters * out_size;
    copies = kCopied * out_size;
    padded = kFilters * g.out_height * out_width;
    row = g.width;
  }

  int64_t image, planes, copies, padded, row;
  int64_t floats() const { return 2 * weights + 2 * image + 2 * planes + 2 * copies + padded + 3 * row; }
};

inline int64_t conv_bytes(const ConvGeometry& g) { return rounded_up(ConvRoom(g).floats() * 4, 8); }

}  // namespace sat_kernels::cpu
