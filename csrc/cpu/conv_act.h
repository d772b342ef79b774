// A network's first layer, convolution and activation, and steps along its gradient: a sample at a time, of which nothing
// leaves the cache but results.
#pragma once

#include <vector>

#include "../formulas/perturbation.h"
#include "attacks.h"
#include "conv_room.h"
#include "latent.h"

namespace sat_kernels::cpu::SK_TARGET {

typedef float Lanes __attribute__((vector_size(4 * kLanes)));

SK_FN Lanes lanes(const float* from) {
  Lanes v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
SK_FN void put(float* to, const Lanes& v) { std::memcpy(to, &v, sizeof(v)); }

template <class F> void with_storage(DType dtype, const F& f) {
  switch (dtype) {
    case DType::bfloat16: return f(static_cast<BFloat16*>(nullptr));
    case DType::float16: return f(static_cast<Half*>(nullptr));
    default: return f(static_cast<float*>(nullptr));
  }
}

typedef float Quad __attribute__((vector_size(16)));

template <class S> SK_FN Quad quad(const S* from) {
  Quad q;
  for (int i = 0; i < 4; ++i) q[i] = load(from[i]);
  return q;
}
template <> SK_FN Quad quad(const float* from) {
  Quad q;
  std::memcpy(&q, from, sizeof(q));
  return q;
}
template <class S> SK_FN void put(S* to, const Quad& q) {
  for (int i = 0; i < 4; ++i) to[i] = store<S>(q[i]);
}
template <> SK_FN void put(float* to, const Quad& q) { std::memcpy(to, &q, sizeof(q)); }

SK_FN void transpose(Quad (&q)[4]) {
  const Quad a = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5), b = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
  const Quad c = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7), d = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
  q[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  q[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  q[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  q[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

// Calls row(first, out) for each row of planes: where it begins in the sample's filters, and in planes.
template <class S, class Row>
SK_FN void each_row(const Images& t, const ConvGeometry& g, int64_t sample, int64_t filter, const Row& row) {
  S* first = static_cast<S*>(t.at) + sample * t.sample + filter * t.channel;
  for (int64_t y = 0; y < g.out_height; ++y) row(first + y * t.row, y * g.out_width);
}

// Calls square(f, x) for four places of four filters at a time where filters are `neighbours` in memory, which takes a third
// of the time of one by one, and one(f, x) for others.
template <class Square, class One>
SK_FN void each_quad(bool neighbours, int64_t width, int64_t filters, const Square& square, const One& one) {
  const int64_t f_end = neighbours ? filters / 4 * 4 : 0, x_end = neighbours ? width / 4 * 4 : 0;
  for (int64_t f = 0; f < f_end; f += 4) {
    for (int64_t x = 0; x < x_end; x += 4) square(f, x);
  }
  for (int64_t f = 0; f < filters; ++f) {
    for (int64_t x = f < f_end ? x_end : 0; x < width; ++x) one(f, x);
  }
}

// The sample's planes of some filters, `apart` numbers from each other, from and to memory.
inline void read_planes(const Images& from, const ConvGeometry& g, int64_t sample, int64_t filter, int64_t filters,
                        int64_t apart, float* to) {
  with_storage(from.dtype, [&]<class S>(S*) {
    each_row<S>(from, g, sample, filter, [&](const S* row, int64_t out) {
      each_quad(from.channel == 1, g.out_width, filters,
                [&](int64_t f, int64_t x) SK_INLINE_LAMBDA {
                  Quad quads[4];
                  for (int i = 0; i < 4; ++i) quads[i] = quad(row + (x + i) * from.column + f);
                  transpose(quads);
                  for (int i = 0; i < 4; ++i) put(to + (f + i) * apart + out + x, quads[i]);
                },
                [&](int64_t f, int64_t x) SK_INLINE_LAMBDA {
                  to[f * apart + out + x] = load(row[f * from.channel + x * from.column]);
                });
    });
  });
}
inline void write_planes(const Images& to, const ConvGeometry& g, int64_t sample, int64_t filter, int64_t filters,
                         int64_t apart, const float* from) {
  with_storage(to.dtype, [&]<class S>(S*) {
    each_row<S>(to, g, sample, filter, [&](S* row, int64_t in) {
      each_quad(to.channel == 1, g.out_width, filters,
                [&](int64_t f, int64_t x) SK_INLINE_LAMBDA {
                  Quad quads[4];
                  for (int i = 0; i < 4; ++i) quads[i] = quad(from + (f + i) * apart + in + x);
                  transpose(quads);
                  for (int i = 0; i < 4; ++i) put(row + (x + i) * to.column + f, quads[i]);
                },
                [&](int64_t f, int64_t x) SK_INLINE_LAMBDA {
                  row[f * to.channel + x * to.column] = store<S>(from[f * apart + in + x]);
                });
    });
  });
}

// Whether a sample's planes are floats one after the other.
inline bool are_planes(const Images& t, const ConvGeometry& g) {
  return t.dtype == DType::float32 && t.column == 1 && t.row == g.out_width;
}

// Two vectors of z for kFilters filters, whose planes are `apart`. Of its own: inlined, its sums do not stay in registers.
[[gnu::noinline]] inline void convolve(const float* from, const int64_t* offsets, int64_t taps, const float* weights,
                                       const float* bias, float* to, int64_t apart) {
  Lanes sums[kFilters][2];
#pragma GCC unroll 8
  for (int f = 0; f < kFilters; ++f) sums[f][0] = sums[f][1] = Lanes{} + bias[f];
  for (int64_t t = 0; t < taps; ++t, weights += kFilters) {
    const Lanes a = lanes(from + offsets[t]), b = lanes(from + offsets[t] + kLanes);
#pragma GCC unroll 8
    for (int f = 0; f < kFilters; ++f) {
      sums[f][0] += a * weights[f];
      sums[f][1] += b * weights[f];
    }
  }
#pragma GCC unroll 8
  for (int f = 0; f < kFilters; ++f, to += apart) {
    put(to, sums[f][0]);
    put(to + kLanes, sums[f][1]);
  }
}

class FirstLayer {
 public:
  FirstLayer(const ConvAct& layer, void* room) : layer_(layer), g_(layer.size), size_(g_) {
    float* next = static_cast<float*>(room);
    const auto take = [&](int64_t n) {
      float* taken = next;
      next += n;
      return taken;
    };
    forward_weights_ = take(size_.weights);
    backward_weights_ = take(size_.weights);
    image_ = take(size_.image);
    gradient_ = take(size_.image);
    z_ = take(size_.planes);
    values_ = take(size_.planes);
    padded_ = take(size_.padded);
    for (float*& row : rows_) row = take(size_.row);
    order_weights();
  }

  // Takes a sample of x, minus the mean.
  void read(const Images& x, int64_t sample) {
    const float* from = static_cast<const float*>(x.at) + sample * x.sample;
    for (int64_t c = 0; c < g_.channels; ++c) {
      const float mean = layer_.mean == nullptr ? 0 : layer_.mean[c];
      for (int64_t y = 0; y < g_.height; ++y) {
        const float* row = from + c * x.channel + y * x.row;
        for (int64_t i = 0; i < g_.width; ++i) *at(image_, c, y, i) = row[i * x.column] - mean;
      }
    }
  }

  // z of kFilters filters from `filter` on, in planes.
  const float* preactivation(int64_t filter) {
    float bias[kFilters] = {};
    for (int64_t f = 0; f < count(filter) && layer_.bias != nullptr; ++f) bias[f] = layer_.bias[filter + f];
    for (int64_t y = 0; y < g_.out_height; ++y) {
      const float* const row = row_of(image_, 0, y * g_.stride, 0);
      // Ends of rows write beyond them, where the next row is written later.
      for (int64_t x = 0; x < g_.out_width; x += 2 * kLanes) {
        convolve(row + x, taps_.data(), taps_.size(), forward_weights_ + filter * taps_.size(), bias,
                 z_ + y * g_.out_width + x, size_.out_size);
      }
    }
    return z_;
  }

  // f(z), or grad f'(z): of planes that are `apart`, in planes.
  const float* activated(Pass pass, int64_t filter, const float* z, int64_t z_apart, const float* grad,
                         int64_t grad_apart) {
    const int64_t plane = g_.out_height * g_.out_width, filters = count(filter);
    for (int64_t f = 0; f < filters; ++f) {
      Elementwise job{};
      job.channels = job.inner = 1;
      for (int k = 0; k < kMostNumbers; ++k) {
        const float* parameter = static_cast<const float*>(layer_.f.parameters[k]);
        job.numbers[k] = layer_.f.numbers[k];
        job.parameters[k] = parameter == nullptr || layer_.f.channels == 1 ? parameter : parameter + filter + f;
      }
      job.input = z + f * z_apart;
      job.grad = grad == nullptr ? nullptr : grad + f * grad_apart;
      job.out = values_ + f * size_.out_size;
      activate<float>(layer_.f, pass, job, plane);
    }
    return values_;
  }

  void clear_gradient() { std::memset(gradient_, 0, size_.image * sizeof(float)); }

  // Adds what the gradient at z, of kFilters filters from `filter` on, gives at the image.
  void add_gradient(int64_t filter, const float* planes) {
    const int64_t filters = count(filter);
    for (int64_t f = 0; f < filters; ++f) {
      for (int64_t y = 0; y < g_.out_height; ++y) {
        std::memcpy(padded_ + (f * g_.out_height + y) * size_.out_width + size_.back,
                    planes + f * size_.out_size + y * g_.out_width, g_.out_width * sizeof(float));
      }
    }
    switch (g_.channels) {
      case 1: return add_to_rows<1>(filter, filters);
      case 2: return add_to_rows<2>(filter, filters);
      case 3: return add_to_rows<3>(filter, filters);
      default: return add_to_rows<4>(filter, filters);
    }
  }

  // The step from x_adv along the gradient.
  void step(const ConvStep& job, int64_t sample) const {
    const auto of = [&](const Size& size, int64_t channel) {
      return size.of == nullptr ? float(size.number)
                                : static_cast<const float*>(size.of)[sample * size.per_sample + channel * size.per_channel];
    };
    float *grad = rows_[0], *moved = rows_[1], *clean = rows_[2];
    for (int64_t c = 0; c < g_.channels; ++c) {
      const LinfStep<float> step{of(job.alpha, c), of(job.eps, c), float(job.lowest), float(job.highest)};
      for (int64_t y = 0; y < g_.height; ++y) {
        float* to = static_cast<float*>(job.x_adv.at) + sample * job.x_adv.sample + c * job.x_adv.channel + y * job.x_adv.row;
        const float* x = static_cast<const float*>(job.x.at) + sample * job.x.sample + c * job.x.channel + y * job.x.row;
        for (int64_t i = 0; i < g_.width; ++i) {
          grad[i] = *at(gradient_, c, y, i);
          moved[i] = to[i * job.x_adv.column];
          clean[i] = x[i * job.x.column];
        }
        SK_INDEPENDENT
        for (int64_t i = 0; i < g_.width; ++i) moved[i] = step(moved[i], grad[i], clean[i]);
        for (int64_t i = 0; i < g_.width; ++i) to[i * job.x_adv.column] = moved[i];
      }
    }
  }

 private:
  int64_t count(int64_t filter) const { return g_.filters - filter < kFilters ? g_.filters - filter : kFilters; }

  float* row_of(float* image, int64_t c, int64_t padded_row, int64_t phase) const {
    return image + ((c * size_.rows + padded_row) * g_.stride + phase) * size_.image_width;
  }
  float* at(float* image, int64_t c, int64_t y, int64_t x) const {
    const int64_t column = x + g_.padding;
    if (g_.stride == 1) return row_of(image, c, y + g_.padding, 0) + column;
    return row_of(image, c, y + g_.padding, column % g_.stride) + column / g_.stride;
  }

  // As they are read: kFilters filters' side by side forward, and channels' backward. Forward with where each is applied.
  void order_weights() {
    for (int64_t c = 0; c < g_.channels; ++c) {
      for (int64_t ky = 0; ky < g_.kernel_height; ++ky) {
        for (int64_t kx = 0; kx < g_.kernel_width; ++kx) {
          taps_.push_back(row_of(image_, c, ky, kx % g_.stride) + kx / g_.stride - image_);
        }
      }
    }
    const int64_t area = g_.kernel_height * g_.kernel_width, taps = g_.channels * area;
    for (int64_t f = 0; f < g_.filters; ++f) {
      for (int64_t c = 0; c < g_.channels; ++c) {
        for (int64_t k = 0; k < area; ++k) {
          const float w = layer_.weight[f * taps + c * area + k];
          forward_weights_[f / kFilters * kFilters * taps + (c * area + k) * kFilters + f % kFilters] = w;
          backward_weights_[f * taps + k * g_.channels + c] = w;
        }
      }
    }
  }

  template <int C> void add_to_rows(int64_t filter, int64_t filters) {
    for (int64_t phase = 0; phase < g_.stride; ++phase) {
      const int64_t taps = phase < g_.kernel_width ? (g_.kernel_width - 1 - phase) / g_.stride + 1 : 0;
      for (int64_t y = g_.padding; y < g_.padding + g_.height; ++y) {
        switch (taps) {
          case 0: break;
          case 1: add_to_row<C, 1>(filter, filters, y, phase, taps); break;
          case 2: add_to_row<C, 2>(filter, filters, y, phase, taps); break;
          case 3: add_to_row<C, 3>(filter, filters, y, phase, taps); break;
          default: add_to_row<C, 0>(filter, filters, y, phase, taps);
        }
      }
    }
  }

  // To those columns of a row's phase that are not padding. Taps: how many there are, or 0: `taps`.
  template <int C, int Taps> void add_to_row(int64_t filter, int64_t filters, int64_t y, int64_t phase, int64_t taps) {
    const int64_t first = (std::max<int64_t>(0, g_.padding - phase) + g_.stride - 1) / g_.stride;
    const int64_t end = (g_.padding + g_.width - phase + g_.stride - 1) / g_.stride;
    // With what is multiplied, 11 to 15 registers.
    constexpr int wide = C < 3 ? 4 : 2;
    int64_t x = first;
    for (; x + wide * kLanes <= end; x += wide * kLanes) add_to<C, wide, Taps>(filter, filters, y, phase, taps, x);
    for (; x < end; x += kLanes) add_to<C, 1, Taps>(filter, filters, y, phase, taps, x);
  }

  // To V vectors of each channel, which are in registers meanwhile.
  template <int C, int V, int Taps>
  SK_FN void add_to(int64_t filter, int64_t filters, int64_t y, int64_t phase, int64_t taps, int64_t x) {
    const int64_t area = g_.kernel_height * g_.kernel_width * C, plane = g_.out_height * size_.out_width;
    const int64_t apart = g_.stride * C, channel = size_.rows * g_.stride * size_.image_width;
    float* const to = row_of(gradient_, 0, y, phase) + x;
    // Taps take turns with two sums where there are fewer than 8, each of which is ready after as many products as are made in
    // four cycles.
    constexpr int turns = C * V < 8 ? 2 : 1;
    Lanes sums[turns][C][V] = {};
    for (int64_t ky = y % g_.stride, out_row = y / g_.stride; ky < g_.kernel_height && out_row >= 0;
         ky += g_.stride, --out_row) {
      if (out_row >= g_.out_height) continue;
      const float* rows = padded_ + out_row * size_.out_width + size_.back + x;
      const float* weights = backward_weights_ + filter * area + (ky * g_.kernel_width + phase) * C;
      for (int64_t f = 0; f < filters; ++f, rows += plane, weights += area) {
        const auto add = [&](int64_t tap, int turn) SK_INLINE_LAMBDA {
          const float* const w = weights + tap * apart;
          Lanes grads[V];
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) grads[v] = lanes(rows - tap + v * kLanes);
#pragma GCC unroll 4
          for (int c = 0; c < C; ++c) {
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[turn][c][v] += grads[v] * w[c];
          }
        };
        if constexpr (Taps > 0) {
#pragma GCC unroll 4
          for (int tap = 0; tap < Taps; ++tap) add(tap, tap % turns);
        } else {
          int64_t tap = 0;
          for (; tap + 2 <= taps; tap += 2) {
            add(tap, 0);
            add(tap + 1, turns - 1);
          }
          if (tap < taps) add(tap, 0);
        }
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        float* const at = to + c * channel + v * kLanes;
        put(at, lanes(at) + (sums[0][c][v] + (turns > 1 ? sums[turns - 1][c][v] : Lanes{})));
      }
    }
  }

  const ConvAct& layer_;
  const ConvGeometry& g_;
  const ConvRoom size_;
  std::vector<int64_t> taps_;
  float *forward_weights_, *backward_weights_, *image_, *gradient_, *z_, *values_, *padded_, *rows_[3];
};

inline void conv_forward(const ConvForward& job, int64_t begin, int64_t end, void* room) {
  const ConvGeometry& g = job.layer.size;
  FirstLayer layer(job.layer, room);
  const int64_t apart = ConvRoom(g).out_size;
  for (int64_t sample = begin; sample < end; ++sample) {
    layer.read(job.x, sample);
    for (int64_t filter = 0; filter < g.filters; filter += kFilters) {
      const int64_t filters = std::min(kFilters, g.filters - filter);
      const float* z = layer.preactivation(filter);
      if (job.z.at != nullptr) write_planes(job.z, g, sample, filter, filters, apart, z);
      write_planes(job.y, g, sample, filter, filters, apart, layer.activated(Pass::forward, filter, z, apart, nullptr, 0));
    }
  }
}

// Planes of filters, kFilters at a time: where they are in memory, or, if they are no planes there, as copies of a cache
// line's worth.
class Planes {
 public:
  Planes(const Images& from, const ConvGeometry& g, float* copies)
      : from_(from), g_(g), direct_(are_planes(from, g)), copies_(copies), apart_(direct_ ? from.channel : ConvRoom(g).out_size) {}

  const float* at(int64_t sample, int64_t filter) {
    if (direct_) return static_cast<const float*>(from_.at) + sample * from_.sample + filter * from_.channel;
    const int64_t first = filter % kCopied;
    if (first == 0) {
      read_planes(from_, g_, sample, filter, std::min(kCopied, g_.filters - filter), apart_, copies_);
    }
    return copies_ + first * apart_;
  }
  int64_t apart() const { return apart_; }

 private:
  const Images& from_;
  const ConvGeometry& g_;
  const bool direct_;
  float* const copies_;
  const int64_t apart_;
};

inline void conv_step(const ConvStep& job, int64_t begin, int64_t end, void* room) {
  const ConvGeometry& g = job.layer.size;
  const int64_t plane = ConvRoom(g).out_size;
  float* copies = static_cast<float*>(room);
  Planes grads(job.grad, g, copies), saved(job.z, g, copies + kCopied * plane);
  FirstLayer layer(job.layer, copies + 2 * kCopied * plane);
  const bool has_z = job.z.at != nullptr;
  for (int64_t sample = begin; sample < end; ++sample) {
    for (int64_t update = 0; update < job.steps; ++update) {
      if (!has_z) layer.read(job.x_adv, sample);
      layer.clear_gradient();
      for (int64_t filter = 0; filter < g.filters; filter += kFilters) {
        const float* z = has_z ? saved.at(sample, filter) : layer.preactivation(filter);
        layer.add_gradient(filter, layer.activated(Pass::backward, filter, z, has_z ? saved.apart() : plane,
                                                   grads.at(sample, filter), grads.apart()));
      }
      layer.step(job, sample);
    }
  }
}

}  // namespace sat_kernels::cpu::SK_TARGET
