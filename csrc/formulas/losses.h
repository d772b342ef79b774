// Losses of a row of logits z with label y, their gradients and the margin z_y - max z_j, j != y.
//
//   ce            log sum exp z - z_y = log(1 + exp(odds))
//   odds          log sum exp z_j over j != y, less z_y: ce's gradient divided by 1 - p_y, so that it does not vanish
//   cw            max z_j, j != y, less z_y
//   dlr           -(z_y - max z_j) / (z_(1) - z_(3) + 1e-12), z_(k) being the k-th largest logit
//   dlr_targeted  -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)
//   kl            KL(softmax(clean) || softmax(z))
//   mart          ce - log(1.0001 - max p_j + 1e-12) + beta kl (1.0000001 - p_y(clean)), max over j != y
//
// Among equal logits the one of lowest index comes first. All is finite for finite logits: what would overflow is the
// largest number. A row with NaN or infinite logits has NaN for loss, margin and gradient; one whose label is no class
// likewise, but a gradient of zero. `correct` is argmax z == y as torch has it, for which NaN is the largest.
#pragma once

#include "../losses.h"
#include "exponential.h"
#include "logarithm.h"
#include "team.h"

namespace sat_kernels {

// A row and where its gradients go.
template <class S> struct LossRow {
  const S* logits;
  const S* clean;
  int32_t classes, y, target;
  S* grad;
  S* clean_grad;
  double beta, largest;
};
struct RowLoss {
  double loss, margin;
  bool correct;
};

namespace detail {

template <class T> constexpr double kMost = FloatBits<T>::kLargest;
SK_FN double saturated(double x, double most) { return at_most(at_least(x, -most), most); }

// log(x) for 1 <= x < 2^100.
SK_FN double log_from_one(double x) {
  const auto [multiple, f, s, rest] = split_log_one_plus(x - 1);
  return multiple + (2 * s + rest);
}

// z_y and the largest other logit.
template <class T> struct Standing {
  T right, rival;
  bool correct, finite;
  SK_FN double margin() const { return saturated(double(right) - double(rival), kMost<T>); }
};

template <class S, class Team> SK_FN auto standing(const Team& team, const S* logits, int32_t classes, int32_t y) {
  using T = decltype(team.read(logits, 0));
  constexpr T largest = FloatBits<T>::kLargest, infinite = T(HUGE_VAL);
  const T right = team.read(logits, y);
  const T rival = team.template most<1>(classes, [=](auto at) SK_INLINE_LAMBDA {
    const T z = team.read(logits, at);
    return Terms<T, 1>{{at.short_index() == y ? -largest : absolute(z) <= largest ? z : infinite}};
  }).of[0];
  const bool finite = rival <= largest && absolute(right) <= largest;
  bool correct = right > rival;
  if (!finite || right == rival) {
    const bool is_nan = right != right;
    correct = team.template most<1>(classes, [=](auto at) SK_INLINE_LAMBDA {
      const T z = team.read(logits, at);
      const bool before = at.short_index() < y;
      const bool ahead = is_nan ? before && z != z : z != z || z > right || (before && z == right);
      return Terms<T, 1>{{ahead ? T(1) : T(0)}};
    }).of[0] == T(0);
  }
  return Standing<T>{right, rival, correct, finite};
}

template <class S, class Team> SK_FN void fill(const Team& team, S* grad, int32_t classes, double value) {
  if (grad == nullptr) return;
  using T = decltype(team.read(grad, 0));
  team.each(classes, [=](auto at) SK_INLINE_LAMBDA { team.write(grad, at, T(value)); });
}

// What there is for a row without a loss. `value`: of the gradients.
template <class S, class Team>
SK_FN RowLoss without_loss(const Team& team, const LossRow<S>& row, bool correct, double value) {
  fill(team, row.grad, row.classes, value);
  fill(team, row.clean_grad, row.classes, value);
  return {NAN, NAN, correct};
}

// The softmax of a row, without the cancellation of 1 - p_y and without overflow.
template <class T> struct Softmax {
  double odds, log_sum, sum;  // sum of exp(z_j - rival) over j != y
  double more;                // log(1 + exp(odds)) = -log p_y
  double half_log;            // log sum exp z_j over all j, halved
  double truth, wrong;        // p_y, 1 - p_y
  SK_FN T scale() const { return T(wrong / sum); }  // p_j / exp(z_j - rival)
};

// powers: exp(z_j - rival), and 0 at y.
template <class T, class S, class Team, class Held>
SK_FN Softmax<T> softmax(const Team& team, const S* logits, int32_t classes, int32_t y, const Standing<T>& at_y,
                         Held& powers) {
  const T rival = at_y.rival;
  Softmax<T> p;
  p.sum = team.template sum<1>(classes, [&powers, team, logits, rival, y](auto at) SK_INLINE_LAMBDA {
    const T power = exponential(at_least(team.read(logits, at) - rival, kExpZero<T>));
    const T kept = at.short_index() == y ? T(0) : power;
    powers[at] = kept;
    return Terms<T, 1>{{kept}};
  }).of[0];
  p.log_sum = log_from_one(p.sum);
  p.odds = saturated((double(rival) - double(at_y.right)) + p.log_sum, kMost<double>);
  const double tail = exponential(at_least(minus_absolute(p.odds), kExpZero<double>)), low = tail / (1 + tail);
  const double log_tail = log_one_plus_fraction(tail), high = 1 / (1 + tail);
  p.more = at_least(p.odds, 0.0) + log_tail;
  p.half_log = p.odds > 0 ? 0.5 * double(rival) + 0.5 * (p.log_sum + log_tail) : 0.5 * double(at_y.right) + 0.5 * log_tail;
  p.truth = p.odds > 0 ? low : high;
  p.wrong = p.odds > 0 ? high : low;
  return p;
}

// A class and its logit.
template <class T> struct Ranked {
  T z;
  int32_t index;
};

// The largest logit behind `last` in the order of falling logits.
template <class T, class Team, class Held>
SK_FN Ranked<T> next(const Team& team, const Held& logits, int32_t classes, Ranked<T> last) {
  constexpr T none = -FloatBits<T>::kLargest;
  const T top = team.template most<1>(classes, [&logits, last](auto at) SK_INLINE_LAMBDA {
    const T z = logits[at];
    return Terms<T, 1>{{z < last.z || (z == last.z && at.short_index() > last.index) ? z : none}};
  }).of[0];
  // Indices are exact in float: there are at most 2^24.
  const T found = team.template most<1>(classes, [&logits, last, top](auto at) SK_INLINE_LAMBDA {
    const bool behind = top < last.z || at.short_index() > last.index;
    return Terms<T, 1>{{logits[at] == top && behind ? T(-at.short_index()) : none}};
  }).of[0];
  return {top, int32_t(-found)};
}

// A gradient that is zero but for a few classes, which may be the same.
template <int K> struct Places {
  int32_t index[K];
  double value[K];
};
template <int K, class S, class Team>
SK_FN void write_sparse(const Team& team, const LossRow<S>& row, const Places<K>& places) {
  using T = decltype(team.read(row.grad, 0));
  fill(team, row.grad, row.classes, 0);
  team.sync();
  if (!team.leader()) return;
  for (int k = 0; k < K; ++k) {
    double total = 0;
    for (int i = 0; i < K; ++i) total += places.index[i] == places.index[k] ? places.value[i] : 0;
    team.write(row.grad, places.index[k], T(saturated(total, row.largest)));
  }
}

}  // namespace detail

// ce, odds
template <class S, class Team> SK_FN RowLoss softmax_loss(Team team, const LossRow<S>& row, Loss loss) {
  using namespace detail;
  const auto at_y = standing(team, row.logits, row.classes, row.y);
  if (!at_y.finite) return without_loss(team, row, at_y.correct, NAN);
  using T = decltype(at_y.right);
  auto powers = team.template hold<T>(row.classes);
  const Softmax<T> p = softmax<T>(team, row.logits, row.classes, row.y, at_y, powers);
  const bool ce = loss == Loss::ce;
  if (row.grad != nullptr) {
    const T scale = ce ? p.scale() : T(1 / p.sum), right = ce ? T(-p.wrong) : T(-1);
    S* grad = row.grad;
    const int32_t y = row.y;
    team.each(row.classes, [&powers, team, grad, scale, right, y](auto at) SK_INLINE_LAMBDA {
      const T value = powers[at] * scale;
      team.write(grad, at, at.short_index() == y ? right : value);
    });
  }
  return {saturated(ce ? p.more : p.odds, kMost<T>), at_y.margin(), at_y.correct};
}

// cw, dlr, dlr_targeted
template <class S, class Team> SK_FN RowLoss ranking_loss(Team team, const LossRow<S>& row, Loss loss) {
  using namespace detail;
  const int32_t classes = row.classes, y = row.y;
  const auto at_y = standing(team, row.logits, classes, y);
  if (!at_y.finite) return without_loss(team, row, at_y.correct, NAN);
  using T = decltype(at_y.right);
  auto logits = team.template hold<T>(classes);
  const S* from = row.logits;
  team.each(classes, [&logits, team, from](auto at) SK_INLINE_LAMBDA { logits[at] = team.read(from, at); });
  const Ranked<T> first = next(team, logits, classes, Ranked<T>{T(HUGE_VAL), -1});
  const Ranked<T> second = next(team, logits, classes, first);
  const int32_t rival = first.index == y ? second.index : first.index;
  if (loss == Loss::cw) {
    if (row.grad != nullptr) write_sparse(team, row, Places<2>{{rival, y}, {1, -1}});
    return {-at_y.margin(), at_y.margin(), at_y.correct};
  }
  const bool targeted = loss == Loss::dlr_targeted;
  const Ranked<T> third = next(team, logits, classes, second);
  const Ranked<T> fourth = targeted ? next(team, logits, classes, third) : third;
  const int32_t against = targeted ? row.target : rival;
  const double other = targeted ? double(team.read(from, row.target)) : double(at_y.rival);
  // A quarter of numerator and denominator: no difference of two float64 logits overflows.
  const double share = 0.25 * double(at_y.right) - 0.25 * other;
  const double spread = (0.25 * double(first.z) - (0.125 * double(third.z) + 0.125 * double(fourth.z))) + 0.25e-12;
  const double ratio = saturated(share / spread, kMost<double>), slope = 0.25 / spread;
  if (row.grad != nullptr) {
    const double bend = saturated(ratio * slope, kMost<double>);
    write_sparse(team, row, Places<5>{{y, against, first.index, third.index, fourth.index},
                                      {-slope, slope, bend, -0.5 * bend, -0.5 * bend}});
  }
  return {saturated(-ratio, kMost<T>), at_y.margin(), at_y.correct};
}

// kl, mart
template <class S, class Team> SK_FN RowLoss divergence_loss(Team team, const LossRow<S>& row, Loss loss) {
  using namespace detail;
  const int32_t classes = row.classes, y = row.y;
  const S *adv = row.logits, *clean = row.clean;
  const auto at_y = standing(team, adv, classes, y), clean_at_y = standing(team, clean, classes, y);
  if (!at_y.finite || !clean_at_y.finite) return without_loss(team, row, at_y.correct, NAN);
  using T = decltype(at_y.right);
  auto powers = team.template hold<T>(classes), clean_powers = team.template hold<T>(classes);
  const Softmax<T> p = softmax<T>(team, adv, classes, y, at_y, powers);
  const Softmax<T> q = softmax<T>(team, clean, classes, y, clean_at_y, clean_powers);
  const T p_scale = p.scale(), q_scale = q.scale();

  // log q_j - log p_j = (clean_j - adv_j) - shift. In halves, since differences of logits may overflow.
  constexpr T most = FloatBits<T>::kLargest;
  const T half_shift = T(q.half_log - p.half_log);
  const auto half_ratio = [=](auto at) SK_INLINE_LAMBDA {
    const T half = (T(0.5) * team.read(clean, at) - T(0.5) * team.read(adv, at)) - half_shift;
    return at_most(at_least(half, -most), most);
  };
  const double ratio_at_y = p.more - q.more;
  const double sum = team.template sum<1>(classes, [&clean_powers, q_scale, half_ratio](auto at) SK_INLINE_LAMBDA {
    return Terms<T, 1>{{clean_powers[at] * q_scale * half_ratio(at)}};
  }).of[0];
  const double kl = at_most(at_least(vanishing_product(ratio_at_y, q.truth) + 2 * sum, 0.0), kMost<T>);

  const bool mart = loss == Loss::mart;
  const double top = p.wrong / p.sum, rest = (1.0001 + 1e-12) - top, boost = mart ? top / rest : 0;
  // The subtrahend is log(1.0001 + 1e-12).
  const double push = mart ? log_from_one(1 + boost) - 9.999500133320834e-05 : 0;
  const double weight = mart ? row.beta * (q.wrong + 1e-7) : 1;

  const double largest = row.largest;
  if (row.grad != nullptr) {
    // At the rival and at y, terms would cancel.
    int32_t rival = -1;
    double at_rival = 0;
    if (mart) {
      const T z = at_y.rival;
      rival = int32_t(-team.template most<1>(classes, [=](auto at) SK_INLINE_LAMBDA {
        return Terms<T, 1>{{at.short_index() != y && team.read(adv, at) == z ? T(-at.short_index()) : -FloatBits<T>::kLargest}};
      }).of[0]);
      const double gap = double(team.read(clean, rival)) - double(clean_at_y.rival);
      const double q_rival = exponential(at_least(gap, kExpZero<double>)) * (q.wrong / q.sum);
      at_rival = saturated(top + boost * (1 - top) + weight * (top - q_rival), largest);
    }
    const double step = weight * (q.wrong - p.wrong) - (mart ? p.wrong + boost * p.truth : 0);
    const T of_p = T(saturated((mart ? 1 - boost : 0) + weight, kMost<T>)), of_q = T(saturated(weight, kMost<T>));
    const T right = T(saturated(step, largest)), rival_value = T(at_rival), bound = T(largest);
    S* grad = row.grad;
    team.each(classes, [&powers, &clean_powers, team, grad, y, rival, p_scale, q_scale, of_p, of_q, right, rival_value,
                        bound](auto at) SK_INLINE_LAMBDA {
      const T value = of_p * (powers[at] * p_scale) - of_q * (clean_powers[at] * q_scale);
      const T kept = at_most(at_least(value, -bound), bound);
      team.write(grad, at, at.short_index() == y ? right : at.short_index() == rival ? rival_value : kept);
    });
  }
  if (row.clean_grad != nullptr) {
    // The weight has a gradient, too: -beta q_y (1[j = y] - q_j).
    const double lean = mart ? row.beta * q.truth : 0;
    const double step = saturated(vanishing_product(weight * (ratio_at_y - kl), q.truth), kMost<double>) -
                        saturated(lean * q.wrong * kl, kMost<double>);
    const T factor = T(saturated(weight, kMost<T>)), offset = T(saturated(0.5 * (weight - lean) * kl, kMost<T>));
    const T right = T(saturated(step, largest)), bound = T(largest);
    S* grad = row.clean_grad;
    team.each(classes, [&clean_powers, team, grad, y, q_scale, factor, offset, right, bound, half_ratio](auto at)
                           SK_INLINE_LAMBDA {
      const T value = vanishing_product(factor * half_ratio(at) - offset, T(2) * (clean_powers[at] * q_scale));
      team.write(grad, at, at.short_index() == y ? right : at_most(at_least(value, -bound), bound));
    });
  }
  const double total = mart ? p.more + push + weight * kl : kl;
  return {saturated(total, kMost<T>), at_y.margin(), at_y.correct};
}

// A row of a job, whose numbers are S.
template <LossFamily family, class S, class Team> SK_FN void row_loss(Team team, const LossJob& job, int64_t row) {
  using T = decltype(team.read(static_cast<const S*>(nullptr), 0));
  const int64_t at = row * job.classes, y = job.y[row], target = job.targets == nullptr ? 0 : job.targets[row];
  const bool has_labels = y >= 0 && y < job.classes && target >= 0 && target < job.classes;
  const LossRow<S> all{
      static_cast<const S*>(job.logits) + row * job.row_stride,
      job.clean == nullptr ? nullptr : static_cast<const S*>(job.clean) + row * job.clean_row_stride,
      int32_t(job.classes),
      int32_t(y),
      int32_t(target),
      job.grad == nullptr ? nullptr : static_cast<S*>(job.grad) + at,
      job.clean_grad == nullptr ? nullptr : static_cast<S*>(job.clean_grad) + at,
      job.beta,
      job.largest,
  };
  RowLoss found;
  if (!has_labels) {
    found = detail::without_loss(team, all, false, 0);
  } else if constexpr (family == LossFamily::softmax) {
    found = softmax_loss(team, all, job.loss);
  } else if constexpr (family == LossFamily::ranking) {
    found = ranking_loss(team, all, job.loss);
  } else {
    found = divergence_loss(team, all, job.loss);
  }
  if (!team.leader()) return;
  team.write(static_cast<T*>(job.losses), row, T(found.loss));
  team.write(static_cast<T*>(job.margins), row, T(found.margin));
  job.correct[row] = found.correct;
}

}  // namespace sat_kernels
