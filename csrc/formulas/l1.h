// The L1 step of projected gradient descent: signs at the gradient's largest elements (SLIDE, arXiv 1904.13000), then the
// exact projection to ball and box together (arXiv 2103.01208).
//
// Feasible because what is stored, x + delta rounded towards x, is no further from x than delta, the box only brings it
// nearer, and the |delta| of T that are summed are those that are stored: their sum in double, which is within one
// rounding for each, is compared with eps.
//
// Both need a number: the top-k threshold, and the one that all sizes are reduced by. They are found by their bits, as
// non-negative numbers are in the order of their bits, in passes that count or sum; no sort.
#pragma once

#include "ball.h"

namespace sat_kernels {

// For the least number, or the one below it, of which something is true that is true of all larger ones.
template <class T> struct BitSearch {
  using Bits = typename FloatBits<T>::Signed;
  Bits low, high;  // not true, true
  int tries = 0;

  SK_FN BitSearch(T low, T high) : low(bit_cast<Bits>(low)), high(bit_cast<Bits>(high)) {}
  SK_FN bool done() const { return high - low <= 1; }
  // The guess, if it is between; else the middle, as is every other one after so many that others will end, too.
  SK_FN T next(Bits guess) {
    const bool guesses = guess > low && guess < high && (++tries < 12 || tries % 2 == 0);
    return bit_cast<T>(guesses ? guess : Bits(low + (high - low) / 2));
  }
  SK_FN void is(T number, bool found) { (found ? high : low) = bit_cast<Bits>(number); }
};

template <class T> struct Largest {
  T least;
  double count;
};

// The `k` largest of sizes >= 0, all that equal the least of them included, none that is 0: how many are >= least. If
// some are infinite, those.
template <class T, class Team, class Held>
SK_FN Largest<T> largest(const Team& team, const Held& sizes, int64_t size, double k) {
  const auto count = [&](T least) {
    return team.template sum<1>(size, [=, &sizes](auto at) SK_INLINE_LAMBDA {
      return Terms<float, 1>{{T(sizes[at]) >= least ? 1.f : 0.f}};
    }).of[0];
  };
  const T top = team.template most<1>(size, [&](auto at) SK_INLINE_LAMBDA { return Terms<T, 1>{{sizes[at]}}; }).of[0];
  if (!(top > T(0))) return {top, 0};
  if (is_infinite(top)) return {top, count(top)};
  using Bits = typename FloatBits<T>::Signed;
  const T smallest = bit_cast<T>(Bits(1));
  double found = count(smallest), above = 0.5;
  BitSearch<T> search(smallest, bit_cast<T>(Bits(bit_cast<Bits>(top) + 1)));
  while (found > k && !search.done()) {
    // As if the logarithm of the count were a line.
    const double part = std::log2(float(found / k)) / std::log2(float(found / above));
    const T least = search.next(search.low + Bits(double(search.high - search.low) * part));
    const double reached = count(least);
    search.is(least, reached < k);
    (reached < k ? above : found) = reached > 0.5 ? reached : 0.5;
  }
  return {bit_cast<T>(search.low), found};
}

// What is left of an element's move.
template <class T> SK_FN T remains(T move, T room, T reduction) {
  const T left = absolute(move) - reduction;
  return at_most(chosen(left > T(0), left, T(0)), room);  // 0 for NaN
}

// The number to reduce all moves by, so that what remains of them is at most eps in sum; 0 also if rounding each of them
// once more would do no harm.
template <class T, class Team, class Held>
SK_FN T l1_reduction(const Team& team, const Held& moves, const Held& rooms, int64_t size, T eps) {
  const auto sums = [&](T reduction) {
    return team.template sum<2>(size, [=, &moves, &rooms](auto at) SK_INLINE_LAMBDA {
      const T room = rooms[at], left = remains(T(moves[at]), room, reduction);
      return Terms<T, 2>{{left, chosen((left > T(0)) & (left < room), T(1), T(0))}};
    });
  };
  const double most = double(eps) * (1 - double(size) * 0x1p-52), enough = most * (1 - 8 * kRounding<T>);
  auto found = sums(T(0));
  if (found.of[0] * (1 + 2 * kRounding<T>) <= most) return T(0);
  BitSearch<T> search(T(0), 4 * kFar<T>);
  T reduction = T(0);
  while (!search.done()) {
    // Newton's method: the slope is how many elements there are between 0 and their rooms.
    const double line = double(reduction) + (found.of[0] - (most + enough) / 2) / found.of[1];
    reduction = search.next(bit_cast<typename FloatBits<T>::Signed>(T(line)));
    found = sums(reduction);
    search.is(reduction, found.of[0] <= most);
    if (found.of[0] <= most && found.of[0] >= enough) break;
  }
  return bit_cast<T>(search.high);
}

// The distance to the box's face that a move leads to, or a unit more: x plus that, rounded towards x, reaches it.
template <class T> SK_FN T room_for(T move, T x, const Range<T>& box) {
  using Bits = typename FloatBits<T>::Signed;
  const T room = at_most(chosen(move < T(0), x - box.low, box.high - x), kFar<T>);
  return chosen(room > T(0), bit_cast<T>(Bits(bit_cast<Bits>(room) + 1)), T(0));
}

// Each of the elements that are moved, about `top_k`, gets alpha divided by their number. skip_faces: elements that are at
// the face that they would be moved to are passed over (as in arXiv 1904.13000's code for robust_union).
template <class Team, class T, class Gradient>
SK_FN void l1_step(Team team, T* x_adv, const Gradient& gradient, const T* x, int64_t size, T alpha, double top_k,
                   bool skip_faces, const Ball<T>& ball) {
  const Range<T> box = ball.box;
  auto moves = team.template hold<T>(size), rooms = team.template hold<T>(size);
  T least = T(0), step = T(0);
  alpha = not_far(alpha);
  if (gradient.exists()) {
    team.each(size, [=, &moves](auto at) SK_INLINE_LAMBDA {
      const T g = gradient(at), size = g == g ? absolute(g) : T(0), found = team.read(x_adv, at);
      const T face = chosen(flip_sign(alpha, g) > T(0), box.high, -box.low), place = flip_sign(found, flip_sign(alpha, g));
      moves[at] = chosen((place < face) | !skip_faces, size, T(0));
    });
    const auto chosen = largest<T>(team, moves, size, top_k);
    least = chosen.least;
    step = chosen.count > 0 ? alpha / T(chosen.count) : T(0);
  }
  team.each(size, [=, &moves, &rooms](auto at) SK_INLINE_LAMBDA {
    const T clean = team.read(x, at);
    T move = not_far(team.read(x_adv, at) - clean);
    if (gradient.exists()) move += chosen(T(moves[at]) >= least, flip_sign(step, T(gradient(at))), T(0));
    moves[at] = move;
    rooms[at] = room_for(move, clean, box);
  });
  const T reduction = l1_reduction<T>(team, moves, rooms, size, ball.eps);
  team.each(size, [=, &moves, &rooms](auto at) SK_INLINE_LAMBDA {
    const T found = team.read(x_adv, at), clean = team.read(x, at), move = moves[at];
    const T moved = moved_by(clean, flip_sign(remains(move, T(rooms[at]), reduction), move));
    // x_adv - x may have been rounded. NaN stays.
    const bool stays = (move == not_far(found - clean)) & (reduction == T(0));
    team.write(x_adv, at, box.cut(chosen(stays | !(move == move), found, moved)));
  });
}

}  // namespace sat_kernels
