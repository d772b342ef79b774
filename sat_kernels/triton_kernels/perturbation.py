"""The Linf steps of projected gradient descent: csrc/formulas/perturbation.h, bit for bit.

Every operation but APGD's quarters is an addition, a comparison or one on bits, so that nothing can be contracted; they
are launched without contraction.
"""

import triton
import triton.language as tl

from .elementwise import from_bits


@triton.jit
def bits_of(x):
    return x.to(tl.int64 if x.dtype == tl.float64 else tl.int32, bitcast=True)


@triton.jit
def flip_sign(x, sign):
    """x with its sign flipped where ``sign`` is negative."""
    mask = -0x8000000000000000 if x.dtype == tl.float64 else -0x80000000
    return (bits_of(x) ^ (bits_of(sign) & mask)).to(x.dtype, bitcast=True)


@triton.jit
def sum_rounded_down(a, b):
    """a + b rounded down, for b >= 0."""
    total = a + b
    too_large = (total - a > b) | (total - b > a)
    # The next number towards -inf: bit patterns grow away from zero. A sum of zero is exact.
    unit = 1 | (bits_of(total) >> (63 if a.dtype == tl.float64 else 31))
    return (bits_of(total) - tl.where(too_large, unit, 0)).to(a.dtype, bitcast=True)


@triton.jit
def project(moved, x, eps, lowest, highest):
    """To the ball, then to the box; NaN stays."""
    # Mirrored so that the way went up from x: then only the upper bound matters.
    side = moved - x
    top, mirrored = sum_rounded_down(flip_sign(x, side), eps), flip_sign(moved, side)
    projected = flip_sign(tl.where(mirrored > top, top, mirrored), side)
    raised = tl.where(projected < lowest, lowest, projected)
    return tl.where(raised > highest, highest, raised)


@triton.jit
def stepped(x_adv, g, x, alpha, eps, lowest, highest):
    # A NaN gradient makes no step.
    return project(x_adv + tl.where(tl.abs(g) > 0, flip_sign(alpha, g.to(x.dtype)), 0.0), x, eps, lowest, highest)


@triton.jit
def widened(g):
    return g.to(tl.float32) if g.dtype.primitive_bitwidth == 16 else g


@triton.jit
def size_at(size, per_sample, per_channel, sample, channel, keep, KIND: tl.constexpr, COMPUTE: tl.constexpr):
    """KIND: 0: the number's bits, 1: numbers per sample, 2: also per channel."""
    if KIND == 0:
        return from_bits(size, COMPUTE)
    elif KIND == 1:
        return tl.load(size + sample * per_sample)
    else:
        return tl.load(size + sample * per_sample + channel * per_channel, mask=keep)


@triton.jit
def write_out(
    out, value, mean, deviation, sample, channel, place, offsets, keep,
    per_sample, per_channel, per_place, IN_ORDER: tl.constexpr,
):  # fmt: skip
    """The network's input, (value - mean) / deviation."""
    value = value.to(tl.float32)
    if mean is not None:
        value -= tl.load(mean + channel, mask=keep)
    if deviation is not None:
        value = tl.div_rn(value, tl.load(deviation + channel, mask=keep))
    at = offsets if IN_ORDER else sample * per_sample + channel * per_channel + place * per_place
    tl.store(out + at, value.to(out.dtype.element_ty), mask=keep)


@triton.jit
def channel_and_place(within, channels, inner):
    """Of the elements at ``within`` in their sample. 32 bits where they do: a 64-bit division is a subroutine."""
    # Arguments of 1 come as constants.
    channels, inner = tl.zeros((), tl.int32) + channels, tl.zeros((), tl.int32) + inner
    if inner.dtype == tl.int32 and channels.dtype == tl.int32:
        i, n, c = within.to(tl.uint32), inner.to(tl.uint32), channels.to(tl.uint32)
        row = i // n
        outer = row // c
        return (row % c).to(tl.int64), outer.to(tl.int64) * inner + (i % n).to(tl.int64)
    else:
        row = within // inner
        outer = row // channels
        return row - outer * channels, outer * inner + (within - row * inner)


@triton.jit
def _elements(
    x_adv, grad, x, x_prev, mask, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel, lowest, highest,
    out, mean, deviation, out_sample, out_channel, out_place, sample, channels, inner, within, offsets, keep,
    ALPHA: tl.constexpr, EPS: tl.constexpr, FIRST: tl.constexpr, IN_ORDER: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    channel, place = sample, sample
    if ALPHA == 2 or EPS == 2 or out is not None:
        channel, place = channel_and_place(within, channels, inner)
    step = size_at(alpha, alpha_sample, alpha_channel, sample, channel, keep, ALPHA, COMPUTE)
    radius = size_at(eps, eps_sample, eps_channel, sample, channel, keep, EPS, COMPUTE)
    found, clean = tl.load(x_adv + offsets, mask=keep), tl.load(x + offsets, mask=keep)
    if mask is not None:
        step = tl.where(tl.load(mask + offsets, mask=keep), step, 0.0)
    if grad is not None:
        moved = stepped(found, widened(tl.load(grad + offsets, mask=keep)), clean, step, radius, lowest, highest)
    else:
        moved = project(found + 0.0, clean, radius, lowest, highest)
    if x_prev is not None:
        if not FIRST:
            # Launched without contraction: products are rounded.
            last = (found - tl.load(x_prev + offsets, mask=keep)) * 0.25
            moved = project(found + (moved - found) * 0.75 + last, clean, radius, lowest, highest)
        tl.store(x_prev + offsets, found, mask=keep)
    tl.store(x_adv + offsets, moved, mask=keep)
    if out is not None:
        write_out(out, moved, mean, deviation, sample, channel, place, offsets, keep,
                  out_sample, out_channel, out_place, IN_ORDER)  # fmt: skip


@triton.jit(do_not_specialize=["alpha", "eps", "lowest", "highest", "tiles"])
def step_linf(
    x_adv, grad, x, x_prev, mask, active, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
    lowest, highest, out, mean, deviation, out_sample, out_channel, out_place, tiles, sample_size, channels, inner,
    ALPHA: tl.constexpr, EPS: tl.constexpr, FIRST: tl.constexpr, IN_ORDER: tl.constexpr, SIZE: tl.constexpr,
    TAIL: tl.constexpr,
):  # fmt: skip
    """A tile of a sample. Dense memory, one sample after the other; what is None is not there.

    alpha, eps: bits, or pointers, as ALPHA and EPS say (see size_at); lowest, highest: bits. x_prev: APGD.
    """
    COMPUTE: tl.constexpr = x.dtype.element_ty
    lowest, highest = from_bits(lowest, COMPUTE), from_bits(highest, COMPUTE)
    program = tl.program_id(0)
    sample = (program // tiles).to(tl.int64)
    begin = (program % tiles).to(tl.int64) * SIZE
    within = begin + tl.arange(0, SIZE)
    offsets = sample * sample_size + within
    run = True
    if active is not None:
        run = tl.load(active + sample) != 0
    if run:
        whole = begin + SIZE <= sample_size if TAIL else True
        if whole:
            _elements(x_adv, grad, x, x_prev, mask, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
                      lowest, highest, out, mean, deviation, out_sample, out_channel, out_place, sample, channels,
                      inner, within, offsets, None, ALPHA, EPS, FIRST, IN_ORDER, COMPUTE)  # fmt: skip
        else:
            keep = within < sample_size
            _elements(x_adv, grad, x, x_prev, mask, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
                      lowest, highest, out, mean, deviation, out_sample, out_channel, out_place, sample, channels,
                      inner, within, offsets, keep, ALPHA, EPS, FIRST, IN_ORDER, COMPUTE)  # fmt: skip
