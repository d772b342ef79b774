"""The L1 step of projected gradient descent: csrc/formulas/l1.h, which explains it."""

import triton
import triton.language as tl

from .ball import cut, far, is_infinite, loaded, moved_by, next_number, not_far, store
from .elementwise import from_bits
from .perturbation import bits_of, flip_sign, size_at


@triton.jit
def _next(low, high, guess, tries):
    """The guess, if it is between; else the middle, as is every other one after 12, so that the search ends."""
    guesses = (guess > low) & (guess < high) & ((tries < 12) | (tries % 2 == 0))
    return tl.where(guesses, guess, low + (high - low) // 2)


@triton.jit
def _key(found, g, alpha, lowest, highest, SKIP_FACES: tl.constexpr):
    """By which elements are chosen: |g|, or 0 where they are not."""
    key = tl.where(g == g, tl.abs(g), 0.0)
    if SKIP_FACES:
        way = flip_sign(tl.zeros(g.shape, g.dtype) + alpha, g)
        key = tl.where(flip_sign(found, way) < tl.where(way > 0, highest, -lowest), key, 0.0)
    return key


@triton.jit
def _count(x_adv, grad, x, mask, base, size, alpha, lowest, highest, least, SKIP_FACES: tl.constexpr,
           SIZE: tl.constexpr):  # fmt: skip
    count = tl.zeros((SIZE,), tl.float64)
    for begin in range(0, size, SIZE):
        within = begin + tl.arange(0, SIZE).to(tl.int64)
        keep = within < size
        found, g, _ = loaded(x_adv, grad, x, mask, base + within, keep)
        hit = keep & (_key(found, g, alpha, lowest, highest, SKIP_FACES) >= least)
        count += tl.where(hit, 1.0, 0.0)
    return tl.sum(count)


@triton.jit
def _largest(x_adv, grad, x, mask, base, size, alpha, lowest, highest, k, SKIP_FACES: tl.constexpr, SIZE: tl.constexpr,
             COMPUTE: tl.constexpr):  # fmt: skip
    """The least of the ``k`` largest keys, and how many are no less. If some are infinite, those; none that is 0."""
    tops = tl.zeros((SIZE,), COMPUTE)
    for begin in range(0, size, SIZE):
        within = begin + tl.arange(0, SIZE).to(tl.int64)
        found, g, _ = loaded(x_adv, grad, x, mask, base + within, within < size)
        key = _key(found, g, alpha, lowest, highest, SKIP_FACES)
        tops = tl.where(key > tops, key, tops)
    top = tl.max(tops, 0)
    smallest = next_number(tl.zeros((), COMPUTE))
    least = tl.where(is_infinite(top), top, smallest)
    count = _count(x_adv, grad, x, mask, base, size, alpha, lowest, highest, least, SKIP_FACES, SIZE)
    low, high = bits_of(least), bits_of(top) + 1
    above, tries = tl.full((), 0.5, tl.float64), 0
    while (count > k) & (high - low > 1):
        # As if the logarithm of the count, which its bits are nearly, were a line.
        part = (bits_of(count) - bits_of(k)).to(tl.float64) / (bits_of(count) - bits_of(above)).to(tl.float64)
        tries += 1
        tried = _next(low, high, low + ((high - low).to(tl.float64) * part).to(low.dtype), tries)
        reached = _count(x_adv, grad, x, mask, base, size, alpha, lowest, highest, tried.to(COMPUTE, bitcast=True),
                         SKIP_FACES, SIZE)  # fmt: skip
        few = reached < k
        low, high = tl.where(few, low, tried), tl.where(few, tried, high)
        reached = tl.where(reached > 0.5, reached, 0.5)
        above, count = tl.where(few, reached, above), tl.where(few, count, reached)
    return low.to(COMPUTE, bitcast=True), count


@triton.jit
def _move(found, g, clean, alpha, step, least, lowest, highest, STEPS: tl.constexpr, SKIP_FACES: tl.constexpr):
    """How an element is to be moved from x, and the distance to the box's face there, or a unit more."""
    move = not_far(found - clean)
    if STEPS:
        chosen = _key(found, g, alpha, lowest, highest, SKIP_FACES) >= least
        move += tl.where(chosen, flip_sign(tl.zeros(g.shape, g.dtype) + step, g), 0.0)
    room = tl.where(move < 0, clean - lowest, highest - clean)
    room = tl.where(room > far(room.dtype), far(room.dtype), room)
    return move, tl.where(room > 0, next_number(room), 0.0)


@triton.jit
def _remains(move, room, reduction):
    """What is left of an element's move; 0 for NaN."""
    left = tl.abs(move) - reduction
    left = tl.where(left > 0, left, 0.0)
    return tl.where(left > room, room, left)


@triton.jit
def _remaining(x_adv, grad, x, mask, base, size, alpha, step, least, lowest, highest, reduction,
               SKIP_FACES: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    """The sum of what remains, and how many elements are between 0 and their rooms."""
    total, slope = tl.zeros((SIZE,), tl.float64), tl.zeros((SIZE,), tl.float64)
    for begin in range(0, size, SIZE):
        within = begin + tl.arange(0, SIZE).to(tl.int64)
        found, g, clean = loaded(x_adv, grad, x, mask, base + within, within < size)
        move, room = _move(found, g, clean, alpha, step, least, lowest, highest, grad is not None, SKIP_FACES)
        left = _remains(move, room, reduction)
        total += left.to(tl.float64)
        slope += tl.where((left > 0) & (left < room), 1.0, 0.0)
    return tl.sum(total), tl.sum(slope)


@triton.jit
def _reduction(x_adv, grad, x, mask, base, size, alpha, step, least, lowest, highest, eps, SKIP_FACES: tl.constexpr,
               SIZE: tl.constexpr, COMPUTE: tl.constexpr):  # fmt: skip
    """The number to reduce all moves by; 0 also if rounding each of them once more would do no harm."""
    rounding: tl.constexpr = 2.0**-53 if tl.float64 == COMPUTE else 2.0**-24
    # Of numbers that are summed in float64, each within one rounding.
    most = eps.to(tl.float64) * (1 - (tl.zeros((), tl.float64) + size) * 2.0**-52)
    enough = most * (1 - 8 * rounding)
    reduction = tl.zeros((), COMPUTE)
    total, slope = _remaining(x_adv, grad, x, mask, base, size, alpha, step, least, lowest, highest, reduction,
                              SKIP_FACES, SIZE)  # fmt: skip
    found = total * (1 + 2 * rounding) <= most
    low, high = bits_of(reduction), bits_of(far(COMPUTE) * 4)
    high = tl.where(found, low, high)
    tries = 0
    while (found == 0) & (high - low > 1):
        # Newton's method.
        line = reduction.to(tl.float64) + (total - (most + enough) / 2) / slope
        tries += 1
        tried = _next(low, high, bits_of(line.to(COMPUTE)), tries)
        reduction = tried.to(COMPUTE, bitcast=True)
        total, slope = _remaining(x_adv, grad, x, mask, base, size, alpha, step, least, lowest, highest, reduction,
                                  SKIP_FACES, SIZE)  # fmt: skip
        inside = total <= most
        low, high = tl.where(inside, low, tried), tl.where(inside, tried, high)
        found = inside & (total >= enough)
    return high.to(COMPUTE, bitcast=True)


@triton.jit(do_not_specialize=["alpha", "eps", "lowest", "highest", "top_k"])
def step_l1(
    x_adv, grad, x, mask, active, alpha, alpha_sample, eps, eps_sample, lowest, highest, top_k, top_k_sample, out, mean,
    deviation, out_sample, out_channel, out_place, sample_size, channels, inner,
    ALPHA: tl.constexpr, EPS: tl.constexpr, TOP_K: tl.constexpr, SKIP_FACES: tl.constexpr, IN_ORDER: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    """The arguments of l2.step_l2. top_k: a number, or, if TOP_K, a pointer to int64."""
    COMPUTE: tl.constexpr = x.dtype.element_ty
    lowest, highest = from_bits(lowest, COMPUTE), from_bits(highest, COMPUTE)
    sample = tl.program_id(0).to(tl.int64)
    run = True
    if active is not None:
        run = tl.load(active + sample) != 0
    if run:
        total = not_far(size_at(alpha, alpha_sample, 0, sample, 0, None, ALPHA, COMPUTE))
        radius = size_at(eps, eps_sample, 0, sample, 0, None, EPS, COMPUTE)
        base = sample * sample_size
        least, step = tl.zeros((), COMPUTE), tl.zeros((), COMPUTE)
        if grad is not None:
            k = (tl.load(top_k + sample * top_k_sample) if TOP_K else top_k).to(tl.float64)
            least, count = _largest(x_adv, grad, x, mask, base, sample_size, total, lowest, highest, k, SKIP_FACES,
                                    SIZE, COMPUTE)  # fmt: skip
            count = count.to(COMPUTE)
            divisor = tl.where(count > 0, count, 1.0)
            step = tl.where(count > 0, total / divisor if tl.float64 == COMPUTE else tl.div_rn(total, divisor), 0.0)
        reduction = _reduction(x_adv, grad, x, mask, base, sample_size, total, step, least, lowest, highest, radius,
                               SKIP_FACES, SIZE, COMPUTE)  # fmt: skip
        for begin in range(0, sample_size, SIZE):
            within = begin + tl.arange(0, SIZE).to(tl.int64)
            keep, offsets = within < sample_size, base + within
            found, g, clean = loaded(x_adv, grad, x, mask, offsets, keep)
            move, room = _move(found, g, clean, total, step, least, lowest, highest, grad is not None, SKIP_FACES)
            moved = moved_by(clean, flip_sign(_remains(move, room, reduction), move))
            # x_adv - x may have been rounded. NaN stays.
            stays = (tl.where(move == not_far(found - clean), reduction, 1.0) == 0) | (move != move)
            store(x_adv, cut(tl.where(stays, found, moved), lowest, highest), out, mean, deviation, sample, channels,
                  inner, within, offsets, keep, out_sample, out_channel, out_place, IN_ORDER)  # fmt: skip
