// The L2 step of projected gradient descent, and APGD's: to the ball, then to the box.
//
// Feasible because what is stored, x + delta rounded towards x, is no further from x than delta, the box only brings it
// nearer, and |delta| <= eps: delta = m * scale, rounded, m = d + c v, rounded, where d = x_adv - x, and the norm of m is
// bounded from above by what sums in double tell of d and v, and by the rounding errors.
#pragma once

#include "ball.h"

namespace sat_kernels {

// A power of two that brings numbers of at most `top` to about 1; in double and the like, no further than their squares
// and inverses go.
template <class T> SK_FN T towards_one(T top) {
  using Bits = typename FloatBits<T>::Signed;
  constexpr Bits kBias = FloatBits<T>::kBias, kNearest = 1;
  const Bits exponent = 2 * kBias - (bit_cast<Bits>(top) >> FloatBits<T>::kMantissa);
  const Bits kept = exponent < kNearest ? kNearest : exponent > 2 * kBias - kNearest ? 2 * kBias - kNearest : exponent;
  return bit_cast<T>(Bits(kept << FloatBits<T>::kMantissa));
}

// How x_adv - x and the gradient are taken: as they are, where sums of their squares tell that this is safe.
template <class T> struct Plainly {
  SK_FN T difference(T d) const { return d; }
  SK_FN T direction(T g) const { return g; }
  SK_FN T known(T d) const { return d; }
};

// Or finite and of a size whose squares can be summed, the gradient's NaN as 0, only signs where some are infinite.
template <class T> struct Carefully {
  T shrink, factor;  // powers of two for the sums, and for the gradient
  bool infinite;
  SK_FN T difference(T d) const { return not_far(d); }
  SK_FN T direction(T g) const {
    const T signs = chosen(is_infinite(g), flip_sign(T(1), g), T(0));
    return chosen(infinite, signs, chosen(g == g, g * factor, T(0)));
  }
  SK_FN T known(T d) const { return chosen(d == d, d * shrink, T(0)); }
};

// The sums of v v, d v and d d, where v is the direction and d the difference, multiplied by `shrink`.
struct L2Sums {
  double vv, dv, dd, shrink;
  double rounding;  // they are within this of the sums of absolute terms
  double missed;    // what underflow may have taken from the root of dd
};

// From x_adv by d + c v, times scale. downward: everything is rounded down.
template <class T, class Taken, bool downward> struct L2Move {
  Taken taken;
  T c, scale;
  Range<T> box;

  SK_FN T operator()(T x_adv, T g, T x) const {
    const T d = taken.difference(x_adv - x), m = d + c * taken.direction(g);
    // x_adv - x may have been rounded.
    return box.cut(chosen((m == d) & (scale == T(1)), x_adv, moved_by<downward>(x, m * scale)));
  }
};

// What to multiply with, so that d + alpha v / |v| and the product end in the ball, rounding included.
//   c, the products with v, the sum and the product with scale are each within kRounding, and kLeast, of what they are
//   computed from: 4.1 (|d| + |alpha|) kRounding, and 3 sqrt(size) kLeast. Rounded down it is twice as much, and d is
//   within 3 kRounding of that in the sums, which was rounded to nearest: 11.2. The rest of this is within 12 roundings
//   of double of (|d| + |alpha|)^2.
template <class T, bool downward> SK_FN T l2_scale(const L2Sums& sums, double alpha, double eps, int64_t size) {
  constexpr double roundings = downward ? 12 : 5;
  const double v = std::sqrt(sums.vv), d = std::sqrt(sums.dd), far = d / sums.shrink, step = absolute(alpha);
  const double unit = far > step ? far : step;  // so that nothing over- or underflows
  if (!(unit > 0)) return T(1);
  const double a = far / unit, b = alpha / unit, both = a + absolute(b), cosine = v * d > 0 ? sums.dv / (v * d) : 0;
  const double square = a * a + 2 * a * b * cosine + b * b + (sums.rounding + 0x1p-48) * both * both;
  const double slack = 4 * std::sqrt(double(size)) * kLeast<T> + sums.missed;
  const double bound = (std::sqrt(square > 0 ? square : 0) + roundings * kRounding<T> * both) * unit + slack;
  if (bound <= eps) return T(1);
  const T scale = T(eps > slack ? (eps - slack) / bound : 0);
  // Not to nearest: the number below.
  using Bits = typename FloatBits<T>::Signed;
  return scale > T(0) ? bit_cast<T>(Bits(bit_cast<Bits>(scale) - 1)) : T(0);
}

// Sums of squares that are larger have lost nothing to underflow that counts: in float, products may have lost 2^-149 each.
template <class T> constexpr double kFew = sizeof(T) == 8 ? 0x1p-900 : 0x1p-80;

template <class T, class Team, class D, class Gradient>
SK_FN L2Sums plain_sums(const Team& team, int64_t size, const D& d, const Gradient& gradient) {
  const auto found = team.products(size, d, gradient);
  constexpr double rounding = Team::template product_rounding<T>();
  const double elements = double(size), dd = found.of[2];
  const double missed = rounding > 0 && !(dd > kFew<T>) ? std::sqrt(elements * 0x1p-149) : 0;
  return {found.of[0], found.of[1], dd, 1, rounding + elements * 0x1p-52, missed};
}

template <class T, class Team, class D, class Gradient>
SK_FN L2Sums careful_sums(const Carefully<T>& taken, const Team& team, int64_t size, const D& d,
                          const Gradient& gradient) {
  const auto found = team.template sum<3>(size, [=](auto at) SK_INLINE_LAMBDA {
    const double far = taken.known(taken.difference(d(at))), v = taken.direction(gradient(at));
    return Terms<double, 3>{{v * v, far * v, far * far}};
  });
  return {found.of[0], found.of[1], found.of[2], double(taken.shrink), double(size) * 0x1p-52, 0};
}

// Calls use(move), whose moves belong into each_downward(). d(at): x_adv - x. gradient(at): 0 where no step is to be made.
template <class Team, class D, class Gradient, class T, class Use>
SK_FN void with_l2_move(const Team& team, int64_t size, const D& d, const Gradient& gradient, T alpha,
                        const Ball<T>& ball, const Use& use) {
  alpha = not_far(alpha);
  const auto use_sums = [&](const auto& taken, const L2Sums& sums) {
    const double step = sums.vv > 0 ? double(alpha) : 0;
    const T c = step != 0 ? T(step / std::sqrt(sums.vv)) : T(0);
    const T scale = l2_scale<T, Team::downward>(sums, step, double(ball.eps), size);
    use(L2Move<T, std::remove_cvref_t<decltype(taken)>, Team::downward>{taken, c, scale, ball.box});
  };
  const L2Sums sums = plain_sums<T>(team, size, d, gradient);
  // Nothing is NaN or infinite, nor are moves; no squares underflow but such as do not matter, nor products with c.
  constexpr double kMost = sizeof(T) == 8 ? 0x1p900 : 0x1p120;
  const double c = double(alpha) / std::sqrt(sums.vv);
  const bool step_fits = sums.vv > kFew<T> && sums.vv < kMost && absolute(c) > 0x1p-100 && absolute(c) < 0x1p100;
  const bool difference_fits = sums.dd < kMost && (sums.dd > kFew<T> || (sizeof(T) == 4 && ball.eps > 0x1p-30f));
  if (difference_fits && (step_fits || !gradient.exists())) return use_sums(Plainly<T>(), sums);
  const auto tops = team.template most<2>(size, [=](auto at) SK_INLINE_LAMBDA {
    return Terms<T, 2>{{absolute(gradient(at)), absolute(not_far(d(at)))}};
  });
  const bool shrinks = sizeof(T) == 8 && tops.of[1] > T(0);
  const T shrink = shrinks ? towards_one(tops.of[1]) : T(1);
  const Carefully<T> carefully{shrink, towards_one(tops.of[0]), is_infinite(tops.of[0])};
  use_sums(carefully, careful_sums(carefully, team, size, d, gradient));
}

template <class Team, class T, class Gradient>
SK_FN void l2_step(Team team, T* x_adv, const Gradient& gradient, const T* x, int64_t size, T alpha,
                   const Ball<T>& ball) {
  const auto d = [=](auto at) SK_INLINE_LAMBDA { return team.read(x_adv, at) - team.read(x, at); };
  with_l2_move(team, size, d, gradient, alpha, ball, [=](const auto& move) {
    team.each_downward(size, [=](auto at) SK_INLINE_LAMBDA {
      team.write(x_adv, at, move(team.read(x_adv, at), gradient(at), team.read(x, at)));
    });
  });
}

// APGD's step (arXiv 2003.01690): three quarters of the way to where the step leads, and a quarter of the last one; then
// to the ball and the box again.
template <class Team, class T, class Gradient>
SK_FN void apgd_l2_step(Team team, T* x_adv, T* x_prev, const Gradient& gradient, const T* x, int64_t size, T alpha,
                        const Ball<T>& ball, bool first) {
  const auto d = [=](auto at) SK_INLINE_LAMBDA { return team.read(x_adv, at) - team.read(x, at); };
  with_l2_move(team, size, d, gradient, alpha, ball, [=](const auto& move) {
    team.each_downward(size, [=](auto at) SK_INLINE_LAMBDA {
      const T found = team.read(x_adv, at), clean = team.read(x, at), led = move(found, gradient(at), clean);
      const T momentum = T(0.75) * (led - found) + T(0.25) * (found - team.read(x_prev, at));
      team.write(x_prev, at, found);
      team.write(x_adv, at, first ? led : found + momentum - clean);
    });
  });
  if (first) return;
  // x_adv holds the differences meanwhile.
  const auto again = [=](auto at) SK_INLINE_LAMBDA { return team.read(x_adv, at); };
  with_l2_move(team, size, again, NoGradient<T>(), T(0), ball, [=](const auto& move) {
    team.each_downward(size, [=](auto at) SK_INLINE_LAMBDA {
      const T delta = move.taken.difference(team.read(x_adv, at)) * move.scale;
      team.write(x_adv, at, ball.box.cut(moved_by<Team::downward>(team.read(x, at), delta)));
    });
  });
}

}  // namespace sat_kernels
