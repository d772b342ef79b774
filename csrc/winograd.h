// Convolutions by 3x3 filters with a stride of 1, by Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308).
//
// A tile of 6x6 inputs d gives 4x4 outputs A'[(G g G') * (B' d B)]A, with 36 multiplications in place of 144. Between the
// transformations there are, for each of a tile's 36 places, matrices: (tiles, channels) times (channels, filters).
// Points 0, +-1, +-2 and infinity.
#pragma once

#include <cstdint>

namespace sat_kernels {

constexpr int kTile = 6, kPlaces = kTile * kTile, kTileOut = 4;

// channels_last: `x` (samples, height, width, channels), `out` (samples, out_height, out_width, filters), both float or
// BFloat16. `weight`: as transformed, see cpu/winograd.h; `bias`: of each filter, or null. Outside x there are zeros.
struct Winograd {
  const void* x;
  const float *weight, *bias;
  void* out;
  int64_t samples, channels, filters, height, width, out_height, out_width, padding_y, padding_x;

  int64_t rows() const { return (out_height + kTileOut - 1) / kTileOut; }
  int64_t columns() const { return (out_width + kTileOut - 1) / kTileOut; }
  int64_t tiles() const { return samples * rows() * columns(); }
};

// Filters as a model has them: (filters, channels, 3, 3) in channels_last, float or BFloat16. `turned`: those of the
// convolution that is its input gradient; filters and channels have changed places then, memory is
// (channels, filters, 3, 3), and each filter is to be turned by 180 degrees.
struct WinogradFilters {
  const void* from;
  int64_t filters, channels;
  bool turned;
};

}  // namespace sat_kernels
