"""The L2 steps of projected gradient descent and APGD: csrc/formulas/l2.h, which explains them."""

import triton
import triton.language as tl

from .ball import cut, is_infinite, loaded, moved_by, not_far, store
from .elementwise import from_bits
from .perturbation import bits_of, flip_sign, size_at


@triton.jit
def _towards_one(top):
    """A power of two that brings numbers of at most ``top`` to about 1, as far as their inverses go."""
    twice_bias: tl.constexpr = 2046 if top.dtype == tl.float64 else 254
    mantissa: tl.constexpr = 52 if top.dtype == tl.float64 else 23
    exponent = twice_bias - (bits_of(top) >> mantissa)
    exponent = tl.where(exponent < 1, 1, tl.where(exponent > twice_bias - 1, twice_bias - 1, exponent))
    return (exponent.to(bits_of(top).dtype) << mantissa).to(top.dtype, bitcast=True)


@triton.jit
def _direction(g, factor, infinite):
    """Of a size whose squares can be summed, the gradient's NaN as 0, only signs where some are infinite."""
    signs = tl.where(is_infinite(g), flip_sign(tl.full(g.shape, 1.0, g.dtype), g), 0.0)
    return tl.where(infinite, signs, tl.where(g == g, g * factor, 0.0))


@triton.jit
def moved(found, g, clean, c, scale, factor, infinite, lowest, highest):
    """From x_adv by d + c v, times scale."""
    d = not_far(found - clean)
    m = d + c * _direction(g, factor, infinite)
    # x_adv - x may have been rounded.
    stays = tl.where(m == d, scale, 0.0) == 1.0  # (m == d) & (scale == 1), which the interpreter cannot
    return cut(tl.where(stays, found, moved_by(clean, m * scale)), lowest, highest)


@triton.jit
def _momentum(found, before, clean, led):
    """Where APGD goes from x, before it is projected again."""
    return not_far(found + (0.75 * (led - found) + 0.25 * (found - before)) - clean)


# Each of these is the TERMS of a move: of the elements at ``offsets``, what is moved from the centre, and the gradient;
# 0 where not ``keep``.
@triton.jit
def _of_step(offsets, keep, x_adv, grad, x, mask):
    found, g, clean = loaded(x_adv, grad, x, mask, offsets, keep)
    return not_far(found - clean), g


@triton.jit
def _of_second_projection(offsets, keep, x_adv, grad, x, mask, x_prev, c, scale, factor, infinite, lowest, highest):
    """APGD's, after the step."""
    found, g, clean = loaded(x_adv, grad, x, mask, offsets, keep)
    led = moved(found, g, clean, c, scale, factor, infinite, lowest, highest)
    d = _momentum(found, tl.load(x_prev + offsets, mask=keep, other=0.0), clean, led)
    return tl.where(keep, d, 0.0), tl.zeros(g.shape, g.dtype)  # the box need not hold 0


@triton.jit
def _sums(source, base, size, by, only_signs, shrink, TERMS: tl.constexpr, SIZE: tl.constexpr):
    """Of v v, d v and d d, where v is the direction as ``by`` and ``only_signs`` say, d multiplied by ``shrink``."""
    vv, dv, dd = tl.zeros((SIZE,), tl.float64), tl.zeros((SIZE,), tl.float64), tl.zeros((SIZE,), tl.float64)
    for begin in range(0, size, SIZE):
        within = begin + tl.arange(0, SIZE).to(tl.int64)
        d, g = TERMS(base + within, within < size, *source)
        known = tl.where(d == d, d * shrink, 0.0).to(tl.float64)
        v = _direction(g, by, only_signs).to(tl.float64)
        vv += v * v
        dv += known * v
        dd += known * known
    return tl.sum(vv), tl.sum(dv), tl.sum(dd)


@triton.jit
def _tops(source, base, size, TERMS: tl.constexpr, SIZE: tl.constexpr, COMPUTE: tl.constexpr):
    """The largest |g| and |d|."""
    top_g, top_d = tl.zeros((SIZE,), COMPUTE), tl.zeros((SIZE,), COMPUTE)
    for begin in range(0, size, SIZE):
        within = begin + tl.arange(0, SIZE).to(tl.int64)
        d, g = TERMS(base + within, within < size, *source)
        top_g = tl.where(tl.abs(g) > top_g, tl.abs(g), top_g)
        top_d = tl.where(tl.abs(d) > top_d, tl.abs(d), top_d)
    return tl.max(top_g, 0), tl.max(top_d, 0)


@triton.jit
def _scale(vv, dv, dd, shrink, alpha, eps, size, COMPUTE: tl.constexpr):
    """What to multiply with, so that d + alpha v / |v| and the product end in the ball, rounding included."""
    double: tl.constexpr = tl.float64 == COMPUTE
    rounding: tl.constexpr = 2.0**-53 if double else 2.0**-24
    least: tl.constexpr = 5e-324 if double else 2.0**-149
    size = tl.zeros((), tl.float64) + size
    v, d, step = tl.sqrt(vv), tl.sqrt(dd), tl.abs(alpha)
    distance = d / shrink
    unit = tl.where(distance > step, distance, step)
    moves = unit > 0
    unit = tl.where(moves, unit, 1.0)
    a, b = distance / unit, alpha / unit
    both, lengths = a + tl.abs(b), v * d
    cosine = tl.where(lengths > 0, dv / tl.where(lengths > 0, lengths, 1.0), 0.0)
    square = a * a + 2 * a * b * cosine + b * b + (size + 16) * 2.0**-52 * both * both
    slack = tl.sqrt(size) * 4 * least
    bound = (tl.sqrt(tl.where(square > 0, square, 0.0)) + 5 * rounding * both) * unit + slack
    scale = tl.where(eps > slack, (eps - slack) / bound, 0.0).to(COMPUTE)
    # Not to nearest: the number below.
    below = (bits_of(scale) - 1).to(COMPUTE, bitcast=True)
    return tl.where((bound <= eps) | (moves == 0), 1.0, tl.where(scale > 0, below, 0.0)).to(COMPUTE)


@triton.jit
def l2_move(source, base, size, alpha, eps, TERMS: tl.constexpr, STEPS: tl.constexpr, SIZE: tl.constexpr,
            COMPUTE: tl.constexpr):  # fmt: skip
    """c and scale of the move, and how the gradient is taken: by which power of two, whether only infinities are.

    The sample's elements are ``size`` from ``base`` on, of which TERMS(offsets, keep, *source) are the terms. STEPS:
    whether there is a gradient.
    """
    double: tl.constexpr = tl.float64 == COMPUTE
    by = tl.full((), 1.0, COMPUTE)
    shrink, only_signs = by, by != by
    vv, dv, dd = _sums(source, base, size, by, only_signs, shrink, TERMS, SIZE)
    alpha = not_far(alpha).to(tl.float64)
    # Nothing is infinite; squares do not underflow (float32's never do, in float64), nor do products with c.
    most: tl.constexpr = 2.0**900 if double else 2.0**240
    fits = dd < most
    if double:
        fits = fits & (dd > 2.0**-900)
    if STEPS:
        size_of_c = tl.abs(alpha) / tl.sqrt(vv)
        fits = fits & (vv > 2.0**-900) & (vv < most) & (size_of_c > 2.0**-100) & (size_of_c < 2.0**100)
    if fits == 0:
        top_g, top_d = _tops(source, base, size, TERMS, SIZE, COMPUTE)
        by, only_signs = _towards_one(top_g), is_infinite(top_g)
        if double:
            shrink = tl.where(top_d > 0, _towards_one(top_d), shrink)
        vv, dv, dd = _sums(source, base, size, by, only_signs, shrink, TERMS, SIZE)
    step = tl.where(vv > 0, alpha, 0.0)
    new_c = tl.where(step != 0, step / tl.sqrt(tl.where(vv > 0, vv, 1.0)), 0.0).to(COMPUTE)
    return new_c, _scale(vv, dv, dd, shrink.to(tl.float64), step, eps.to(tl.float64), size, COMPUTE), by, only_signs


@triton.jit(do_not_specialize=["alpha", "eps", "lowest", "highest"])
def step_l2(
    x_adv, grad, x, x_prev, mask, active, alpha, alpha_sample, eps, eps_sample, lowest, highest, out, mean, deviation,
    out_sample, out_channel, out_place, sample_size, channels, inner,
    ALPHA: tl.constexpr, EPS: tl.constexpr, FIRST: tl.constexpr, IN_ORDER: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Dense memory, one sample after the other; what is None is not there.

    alpha, eps: bits, or pointers, as ALPHA and EPS say (see perturbation.size_at); lowest, highest: bits. x_prev: APGD.
    """
    COMPUTE: tl.constexpr = x.dtype.element_ty
    AGAIN: tl.constexpr = x_prev is not None and not FIRST
    lowest, highest = from_bits(lowest, COMPUTE), from_bits(highest, COMPUTE)
    sample = tl.program_id(0).to(tl.int64)
    run = True
    if active is not None:
        run = tl.load(active + sample) != 0
    if run:
        step = size_at(alpha, alpha_sample, 0, sample, 0, None, ALPHA, COMPUTE)
        radius = size_at(eps, eps_sample, 0, sample, 0, None, EPS, COMPUTE)
        base = sample * sample_size
        source = (x_adv, grad, x, mask)
        c, scale, factor, infinite = l2_move(source, base, sample_size, step, radius, _of_step, grad is not None, SIZE,
                                             COMPUTE)  # fmt: skip
        back = scale
        if AGAIN:
            again = (x_adv, grad, x, mask, x_prev, c, scale, factor, infinite, lowest, highest)
            _, back, _, _ = l2_move(again, base, sample_size, step, radius, _of_second_projection, False, SIZE, COMPUTE)
        for begin in range(0, sample_size, SIZE):
            within = begin + tl.arange(0, SIZE).to(tl.int64)
            keep, offsets = within < sample_size, base + within
            found, g, clean = loaded(x_adv, grad, x, mask, offsets, keep)
            to = moved(found, g, clean, c, scale, factor, infinite, lowest, highest)
            if x_prev is not None:
                if AGAIN:
                    delta = _momentum(found, tl.load(x_prev + offsets, mask=keep, other=0.0), clean, to) * back
                    to = cut(moved_by(clean, delta), lowest, highest)
                tl.store(x_prev + offsets, found, mask=keep)
            store(x_adv, to, out, mean, deviation, sample, channels, inner, within, offsets, keep, out_sample,
                  out_channel, out_place, IN_ORDER)  # fmt: skip
