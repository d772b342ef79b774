// Winograd's convolution in three passes over a block of tiles, whose matrices stay in the caches that cores share.
#pragma once

#include "../storage.h"
#include "../winograd.h"
#include "attacks.h"

namespace sat_kernels::cpu::SK_TARGET {

// Numbers of a vector; tiles that are multiplied together, whose sums, two vectors each, fill most of the registers.
constexpr int kWide = SK_WIDE, kTogether = kWide == 16 ? 12 : 6;
// Filters of a panel of the weights; tiles of a task, whose products stay in a core's cache.
constexpr int64_t kPanel = 2 * kWide, kAtOnce = 48;

typedef float Wide __attribute__((vector_size(4 * kWide)));
typedef uint32_t WideBits __attribute__((vector_size(4 * kWide)));
typedef uint16_t WideHalves __attribute__((vector_size(2 * kWide)));

SK_FN Wide wide(const float* from) {
  Wide v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
SK_FN Wide wide(const BFloat16* from) {
  WideHalves v;
  std::memcpy(&v, from, sizeof(v));
  return (Wide)(__builtin_convertvector(v, WideBits) << 16);
}
SK_FN void put_wide(float* to, Wide v) { std::memcpy(to, &v, sizeof(v)); }
SK_FN void put_wide(BFloat16* to, Wide v) {
  const WideBits bits = (WideBits)v, rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const WideHalves halves = __builtin_convertvector(v == v ? rounded : (rounded & 0u) + 0x7fc0u, WideHalves);
  std::memcpy(to, &halves, sizeof(halves));
}

// B' d: one row or column of a tile.
SK_FN void before(const Wide (&d)[kTile], Wide (&out)[kTile]) {
  const Wide even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1], four = d[4] - d[2], twice = 2.0f * (d[3] - d[1]);
  out[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
  out[1] = even + odd;
  out[2] = even - odd;
  out[3] = four + twice;
  out[4] = four - twice;
  out[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

// A' m.
SK_FN void after(const Wide (&m)[kTile], Wide (&out)[kTileOut]) {
  const Wide a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
  out[0] = m[0] + a + c;
  out[1] = b + 2.0f * d;
  out[2] = a + 4.0f * c;
  out[3] = b + 8.0f * d + m[5];
}

// G g.
SK_FN void of_filter(const Wide (&g)[3], Wide (&out)[kTile]) {
  const Wide sum = (g[0] + g[2]) * (-1.0f / 6), far = g[0] * (1.0f / 24) + g[2] * (1.0f / 6);
  out[0] = g[0] * 0.25f;
  out[1] = sum - g[1] * (1.0f / 6);
  out[2] = sum + g[1] * (1.0f / 6);
  out[3] = far + g[1] * (1.0f / 12);
  out[4] = far - g[1] * (1.0f / 12);
  out[5] = g[2];
}

// Where a tile of a block begins.
struct Tile {
  int64_t sample, y, x;
  Tile(const Winograd& job, int64_t number) {
    x = number % job.columns() * kTileOut;
    number /= job.columns();
    y = number % job.rows() * kTileOut;
    sample = number / job.rows();
  }
};

// inputs[place][tile][channel] of tiles [begin, end) of the block that begins with tile `first`; a place is `step` floats.
template <class S>
void winograd_inputs(const Winograd& job, int64_t first, int64_t begin, int64_t end, float* inputs, int64_t step) {
  const S* x = static_cast<const S*>(job.x);
  for (int64_t t = begin; t < end; ++t) {
    const Tile tile(job, first + t);
    const S* from[kPlaces];
    for (int i = 0; i < kPlaces; ++i) {
      const int64_t y = tile.y - job.padding_y + i / kTile, column = tile.x - job.padding_x + i % kTile;
      const bool inside = y >= 0 && y < job.height && column >= 0 && column < job.width;
      from[i] = inside ? x + ((tile.sample * job.height + y) * job.width + column) * job.channels : nullptr;
    }
    float* to = inputs + t * job.channels;
    for (int64_t c = 0; c < job.channels; c += kWide) {
      Wide half[kTile][kTile];
      for (int j = 0; j < kTile; ++j) {
        Wide column[kTile], done[kTile];
        for (int i = 0; i < kTile; ++i) column[i] = from[i * kTile + j] ? wide(from[i * kTile + j] + c) : Wide{};
        before(column, done);
        for (int i = 0; i < kTile; ++i) half[i][j] = done[i];
      }
      for (int i = 0; i < kTile; ++i) {
        Wide done[kTile];
        before(half[i], done);
        for (int j = 0; j < kTile; ++j) put_wide(to + (i * kTile + j) * step + c, done[j]);
      }
    }
  }
}

// Products of kTogether tiles and a panel: rows of `channels` numbers times (channels, kPanel).
SK_FN void multiply(const float* inputs, const float* weight, int64_t channels, float* products) {
  Wide sums[kTogether][2];
  for (auto& of_tile : sums) of_tile[0] = of_tile[1] = Wide{};
  for (int64_t c = 0; c < channels; ++c) {
    const Wide low = wide(weight + c * kPanel), high = wide(weight + c * kPanel + kWide);
#pragma GCC unroll 12
    for (int r = 0; r < kTogether; ++r) {
      const float number = inputs[r * channels + c];
      sums[r][0] += number * low;
      sums[r][1] += number * high;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kTogether; ++r) {
    put_wide(products + r * kPanel, sums[r][0]);
    put_wide(products + r * kPanel + kWide, sums[r][1]);
  }
}

// Of `count` <= kAtOnce tiles from tile `start` of the block that begins with tile `first`, all outputs of a panel's filters.
// `inputs` as above; `products`: room for kPlaces * kAtOnce * kPanel floats, products[place][tile][filter].
template <class S>
void winograd_outputs(const Winograd& job, int64_t first, int64_t start, int64_t count, int64_t panel,
                      const float* inputs, int64_t step, float* products) {
  for (int64_t place = 0; place < kPlaces; ++place) {
    const float* weight = job.weight + (panel * kPlaces + place) * job.channels * kPanel;
    const float* from = inputs + place * step + start * job.channels;
    for (int64_t t = 0; t < count; t += kTogether) {
      multiply(from + t * job.channels, weight, job.channels, products + (place * kAtOnce + t) * kPanel);
    }
  }
  for (int64_t t = 0; t < count; ++t) {
    const Tile tile(job, first + start + t);
    const int64_t rows = job.out_height - tile.y, columns = job.out_width - tile.x;
    S* to = static_cast<S*>(job.out) + panel * kPanel +
            ((tile.sample * job.out_height + tile.y) * job.out_width + tile.x) * job.filters;
    for (int64_t f = 0; f < kPanel; f += kWide) {
      const Wide bias = job.bias ? wide(job.bias + panel * kPanel + f) : Wide{};
      Wide half[kTileOut][kTile];
      for (int j = 0; j < kTile; ++j) {
        Wide column[kTile], done[kTileOut];
        for (int i = 0; i < kTile; ++i) column[i] = wide(products + ((i * kTile + j) * kAtOnce + t) * kPanel + f);
        after(column, done);
        for (int i = 0; i < kTileOut; ++i) half[i][j] = done[i];
      }
      for (int i = 0; i < kTileOut && i < rows; ++i) {
        Wide done[kTileOut];
        after(half[i], done);
        S* row = to + i * job.out_width * job.filters + f;
        for (int j = 0; j < kTileOut && j < columns; ++j) put_wide(row + j * job.filters, done[j] + bias);
      }
    }
  }
}

// The rows of a square as columns.
template <int step> SK_FN void exchange(Wide (&rows)[kWide]) {
  typedef int32_t Places __attribute__((vector_size(4 * kWide)));
  Places low, high;
  for (int i = 0; i < kWide; ++i) {
    low[i] = i & step ? kWide + i - step : i;
    high[i] = i & step ? kWide + i : i + step;
  }
  for (int i = 0; i < kWide; ++i) {
    if (i & step) continue;
    const Wide a = rows[i], b = rows[i + step];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + step] = __builtin_shuffle(a, b, high);
  }
}
SK_FN void rows_to_columns(Wide (&rows)[kWide]) {
  exchange<1>(rows);
  exchange<2>(rows);
  if constexpr (kWide > 4) exchange<4>(rows);
  if constexpr (kWide > 8) exchange<8>(rows);
}

// Panels [begin, end): weights[panel][place][channel][filter of the panel].
template <class S> void winograd_weight(const WinogradFilters& job, int64_t begin, int64_t end, float* weights) {
  const S* from = static_cast<const S*>(job.from);
  const int64_t step = job.channels * kPanel;  // of a place
  for (int64_t filter = begin * kPanel; filter < end * kPanel; filter += kWide) {
    float* out = weights + filter / kPanel * kPlaces * step + filter % kPanel;
    for (int64_t c = 0; c < job.channels; c += kWide) {
      Wide g[9][kWide];
      for (int tap = 0; tap < 9; ++tap) {
        for (int k = 0; k < kWide; ++k) {
          g[tap][k] = wide(job.turned ? from + ((c + k) * 9 + 8 - tap) * job.filters + filter
                                      : from + ((filter + k) * 9 + tap) * job.channels + c);
        }
        if (!job.turned) rows_to_columns(g[tap]);
      }
      for (int k = 0; k < kWide; ++k) {
        Wide half[kTile][3];
        for (int j = 0; j < 3; ++j) {
          const Wide column[3] = {g[j][k], g[3 + j][k], g[6 + j][k]};
          Wide done[kTile];
          of_filter(column, done);
          for (int i = 0; i < kTile; ++i) half[i][j] = done[i];
        }
        for (int i = 0; i < kTile; ++i) {
          Wide done[kTile];
          of_filter(half[i], done);
          for (int j = 0; j < kTile; ++j) put_wide(out + (i * kTile + j) * step + (c + k) * kPanel, done[j]);
        }
      }
    }
  }
}

inline WinogradKernels winograd_kernels() {
  WinogradKernels k{};
  k.panel = kPanel;
  k.together = kTogether;
  k.at_once = kAtOnce;
  k.weight[int(DType::float32)] = &winograd_weight<float>;
  k.weight[int(DType::bfloat16)] = &winograd_weight<BFloat16>;
  k.inputs[int(DType::float32)] = &winograd_inputs<float>;
  k.inputs[int(DType::bfloat16)] = &winograd_inputs<BFloat16>;
  k.outputs[int(DType::float32)] = &winograd_outputs<float>;
  k.outputs[int(DType::bfloat16)] = &winograd_outputs<BFloat16>;
  return k;
}

}  // namespace sat_kernels::cpu::SK_TARGET
