// The state of an attack, a sample at a time: its best point, and APGD's steps (Croce and Hein, arXiv 2003.01690 and
// 2103.01208).
//
// Everybody decides from the numbers in memory; the leader changes them when all have.
#pragma once

#include "../state.h"
#include "team.h"

namespace sat_kernels {

// Whether a > b, where any number is more than NaN, and NaN is not more than anything.
template <class T> SK_FN bool exceeds(T a, T b) { return a == a && !(a <= b); }

template <class S, class Team> SK_FN void copy(const Team& team, S* to, const S* from, int64_t size) {
  team.each(size, [=](auto at) SK_INLINE_LAMBDA { team.put(to, at, team.get(from, at)); });
}

template <class T, class Team> SK_FN void keep_best(const Team& team, const KeepBest& job, int64_t sample) {
  const T loss = team.get(static_cast<const T*>(job.loss), sample);
  T* best_loss = static_cast<T*>(job.best_loss);
  const bool succeeded = team.get(job.success, sample), fooled = team.get(job.fooled, sample);
  const bool better = !succeeded && (fooled || exceeds(loss, team.get(best_loss, sample)));
  const int64_t first = sample * job.sample_size;
  if (better) copy(team, static_cast<T*>(job.best) + first, static_cast<const T*>(job.x_adv) + first, job.sample_size);
  team.sync();
  if (!team.leader()) return;
  if (better) team.put(best_loss, sample, loss);
  team.put(job.success, sample, succeeded || fooled);
}

// G: an integer of the gradient's size.
template <class T, class G, class Team> SK_FN void apgd_update(const Team& team, const ApgdUpdate& job, int64_t sample) {
  const auto numbers = [sample](auto* of) { return static_cast<T*>(of) + sample; };
  const int64_t size = job.sample_size, first = sample * size;
  T* x_adv = static_cast<T*>(job.x_adv) + first;
  T* best = static_cast<T*>(job.best) + first;
  G* grad = static_cast<G*>(job.grad) + first;
  G* best_grad = static_cast<G*>(job.best_grad) + first;
  const T loss = team.get(static_cast<const T*>(job.loss), sample);
  const T previous = team.get(numbers(job.previous_loss), 0), top = team.get(numbers(job.best_loss), 0);
  const T at_checkpoint = team.get(numbers(job.checkpoint_loss), 0);
  T step = team.get(numbers(job.step_size), 0);
  const T largest = team.get(static_cast<const T*>(job.largest_step), sample);
  const bool fooled = team.get(job.fooled, sample), better = exceeds(loss, top), sparse = job.x != nullptr;
  const bool was_reduced = team.get(job.reduced, sample);
  const int64_t rises = team.get(job.rises, sample) + (loss > previous);
  const T best_loss = better ? loss : top;
  bool restart = false;
  int64_t moved = 0;
  if (job.checkpoint != 0 && sparse) {
    const T* x = static_cast<const T*>(job.x) + first;
    const T* found = better ? x_adv : best;
    moved = int64_t(team.template sum<1>(size, [=](auto at) SK_INLINE_LAMBDA {
      return Terms<double, 1>{{team.get(found, at) != team.get(x, at) ? 1.0 : 0.0}};
    }).of[0]);
    // Fewer than 95 %: AutoAttack's quotient, in integers.
    restart = 20 * moved < 19 * team.get(job.sparsity, sample);
    const T shorter = step / T(1.5), least = largest / T(10);
    step = restart ? largest : at_most(at_least(shorter, least), largest);
  } else if (job.checkpoint != 0) {
    restart = rises <= job.few_rises || (!was_reduced && !exceeds(best_loss, at_checkpoint));
    step = restart ? step * T(0.5) : step;
  }
  if (fooled) copy(team, static_cast<T*>(job.fooling) + first, x_adv, size);
  if (better) {
    copy(team, best, x_adv, size);
    copy(team, best_grad, grad, size);
  } else if (restart) {
    copy(team, x_adv, best, size);
    copy(team, grad, best_grad, size);
  }
  team.sync();
  if (!team.leader()) return;
  team.put(numbers(job.previous_loss), 0, loss);
  if (better) team.put(numbers(job.best_loss), 0, loss);
  if (fooled) team.put(job.success, sample, true);
  team.put(job.rises, sample, job.checkpoint != 0 ? int64_t(0) : rises);
  if (job.checkpoint == 0) return;
  team.put(numbers(job.step_size), 0, step);
  team.put(numbers(job.checkpoint_loss), 0, best_loss);
  team.put(job.reduced, sample, restart);
  if (!sparse) return;
  // Of AutoAttack's sorted gradients those from place (1 - moved / size / 1.5) size on.
  const int64_t most = (2 * moved + 2) / 3;
  team.put(job.top_k, sample, most < 1 ? int64_t(1) : most);
  team.put(job.sparsity, sample, moved);
}

}  // namespace sat_kernels
