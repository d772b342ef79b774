// MI-FGSM's gradient (arXiv 1710.06081): over the mean of its elements' sizes.
#pragma once

#include "perturbation.h"
#include "team.h"

namespace sat_kernels {

// What a gradient is divided by, in two factors that are numbers of T, whatever the gradient's size.
template <class T> struct MeanGradient {
  T first, second;
  bool infinite;

  // The gradient's element over the mean: of a gradient with infinite elements, those are +-1 and others 0. NaN is 0.
  SK_FN T share(T g) const {
    const T size = absolute(g);
    const T counted = infinite ? (size > FloatBits<T>::kLargest ? flip_sign(T(1), g) : T(0)) : (size > 0 ? g : T(0));
    return counted * first * second;
  }
};

template <class T, class G, class Team>
SK_FN MeanGradient<T> mean_gradient(const Team& team, const G* grad, int64_t size) {
  double sum = team.template sum<1>(size, [=](auto at) SK_INLINE_LAMBDA {
    return Terms<T, 1>{{absolute(T(team.read(grad, at)))}};
  }).of[0];
  bool infinite = false, large = false;
  if (!(sum <= FloatBits<double>::kLargest)) {
    // The sum of what is finite, the same for numbers so large that it would overflow, and how many are infinite.
    const auto sums = team.template sum<3>(size, [=](auto at) SK_INLINE_LAMBDA {
      const T g = absolute(T(team.read(grad, at)));
      const double counted = g <= FloatBits<T>::kLargest ? double(g) : 0;
      return Terms<double, 3>{{counted, counted * 0x1p-64, g > FloatBits<T>::kLargest ? 1.0 : 0.0}};
    });
    infinite = sums.of[2] > 0;
    large = sums.of[0] > FloatBits<double>::kLargest;
    sum = infinite ? sums.of[2] : large ? sums.of[1] : sums.of[0];
  }
  if (!(sum > 0)) return {T(0), T(0), infinite};
  // size / sum: half of the exponent for each factor.
  int exponent;
  const double fraction = std::frexp(sum, &exponent);
  if (large && !infinite) exponent += 64;
  const int half = exponent / 2;
  return {T(std::ldexp(1.0, -half)), T(std::ldexp(double(size) / fraction, half - exponent)), infinite};
}

}  // namespace sat_kernels
