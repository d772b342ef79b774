"""Activations of z + delta, and steps of delta along the gradient there: csrc/formulas/latent.h, which explains them.

Dense memory, element i of a sample in channel i // inner % channels. z + delta and what depends on it are computed in
delta's type. F: an activation's value in a forward pass, else its derivative; first, second: its numbers. These and the
sizes are bits, or pointers, as NUMBERS, ALPHA, EPS, LO and HI say (see perturbation.size_at). lo: None where z + delta
has no bounds.
"""

import triton
import triton.language as tl

from .ball import cut
from .l2 import l2_move, moved
from .perturbation import channel_and_place, flip_sign, size_at, sum_rounded_down


@triton.jit
def within_bounds(delta, z, lo, hi):
    """lo <= z + delta <= hi in exact arithmetic, if lo <= z <= hi; delta only comes nearer to 0 then."""
    return cut(delta, -sum_rounded_down(z, -lo), sum_rounded_down(hi, -z))


@triton.jit
def _loaded(pointer, offsets, keep):
    """0 where not ``keep``; all elements if that is None."""
    if keep is None:
        return tl.load(pointer + offsets)
    else:
        return tl.load(pointer + offsets, mask=keep, other=0.0)


@triton.jit
def _channel(within, channels, inner, WIDE: tl.constexpr):
    """WIDE: whether there are numbers from 2^32 on in ``within``."""
    inner = tl.zeros((), tl.int64 if WIDE else tl.int32) + inner
    return channel_and_place(within, channels, inner)[0]


@triton.jit
def numbers_at(first, second, channel, NUMBERS: tl.constexpr, COMPUTE: tl.constexpr):
    return (
        size_at(first, 0, 1, 0, channel, None, NUMBERS, COMPUTE),
        size_at(second, 0, 1, 0, channel, None, NUMBERS, COMPUTE),
    )


@triton.jit
def _gradient(grad, z, delta, first, second, channel, offsets, keep, F: tl.constexpr, NUMBERS: tl.constexpr,
              FAST: tl.constexpr):  # fmt: skip
    """z, delta, and grad f'(z + delta)."""
    COMPUTE: tl.constexpr = delta.dtype.element_ty
    a, b = numbers_at(first, second, channel, NUMBERS, COMPUTE)
    at, found = _loaded(z, offsets, keep).to(COMPUTE), _loaded(delta, offsets, keep)
    return at, found, _loaded(grad, offsets, keep).to(COMPUTE) * F(at + found, a, b, FAST)


@triton.jit
def _store(delta, to, at, g, out, lo, lo_sample, lo_channel, hi, hi_sample, hi_channel, sample, channel, offsets, keep,
           LO: tl.constexpr, HI: tl.constexpr):  # fmt: skip
    """delta after a step, within the bounds of z + delta; and the gradient, if it is asked for."""
    COMPUTE: tl.constexpr = delta.dtype.element_ty
    if lo is not None:
        lowest = size_at(lo, lo_sample, lo_channel, sample, channel, None, LO, COMPUTE)
        to = within_bounds(to, at, lowest, size_at(hi, hi_sample, hi_channel, sample, channel, None, HI, COMPUTE))
    tl.store(delta + offsets, to, mask=keep)
    if out is not None:
        tl.store(out + offsets, g.to(out.dtype.element_ty), mask=keep)


@triton.jit
def _elements(
    grad, z, delta, out, first, second, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
    lo, lo_sample, lo_channel, hi, hi_sample, hi_channel, sample, channels, inner, within, offsets, keep,
    PASS: tl.constexpr, F: tl.constexpr, NUMBERS: tl.constexpr, ALPHA: tl.constexpr, EPS: tl.constexpr,
    LO: tl.constexpr, HI: tl.constexpr, FAST: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    COMPUTE: tl.constexpr = delta.dtype.element_ty
    channel = sample
    if NUMBERS == 2 or ALPHA == 2 or EPS == 2 or LO == 2 or HI == 2:
        channel = _channel(within, channels, inner, WIDE)
    if PASS == "forward":
        a, b = numbers_at(first, second, channel, NUMBERS, COMPUTE)
        value = F(_loaded(z, offsets, keep).to(COMPUTE) + _loaded(delta, offsets, keep), a, b, FAST)
        tl.store(out + offsets, value.to(out.dtype.element_ty), mask=keep)
    else:
        at, found, g = _gradient(grad, z, delta, first, second, channel, offsets, keep, F, NUMBERS, FAST)
        if PASS == "backward":
            tl.store(out + offsets, g.to(out.dtype.element_ty), mask=keep)
        else:
            step = size_at(alpha, alpha_sample, alpha_channel, sample, channel, None, ALPHA, COMPUTE)
            radius = size_at(eps, eps_sample, eps_channel, sample, channel, None, EPS, COMPUTE)
            # A NaN gradient makes no step.
            to = cut(found + tl.where(tl.abs(g) > 0, flip_sign(step, g), 0.0), -radius, radius)
            _store(delta, to, at, g, out, lo, lo_sample, lo_channel, hi, hi_sample, hi_channel, sample, channel,
                   offsets, keep, LO, HI)  # fmt: skip


@triton.jit(do_not_specialize=["first", "second", "alpha", "eps", "lo", "hi", "tiles"])
def perturbed(
    grad, z, delta, out, first, second, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
    lo, lo_sample, lo_channel, hi, hi_sample, hi_channel, tiles, sample_size, channels, inner,
    PASS: tl.constexpr, F: tl.constexpr, NUMBERS: tl.constexpr, ALPHA: tl.constexpr, EPS: tl.constexpr,
    LO: tl.constexpr, HI: tl.constexpr, FAST: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
    TAIL: tl.constexpr,
):  # fmt: skip
    """A tile of a sample. PASS: "forward": f(z + delta), "backward": grad f'(z + delta), "linf": the step."""
    program = tl.program_id(0)
    sample = (program // tiles).to(tl.int64)
    begin = (program % tiles).to(tl.int64) * SIZE
    within = begin + tl.arange(0, SIZE)
    offsets = sample * sample_size + within
    whole = begin + SIZE <= sample_size if TAIL else True
    if whole:
        _elements(grad, z, delta, out, first, second, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
                  lo, lo_sample, lo_channel, hi, hi_sample, hi_channel, sample, channels, inner, within, offsets, None,
                  PASS, F, NUMBERS, ALPHA, EPS, LO, HI, FAST, WIDE)  # fmt: skip
    else:
        _elements(grad, z, delta, out, first, second, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
                  lo, lo_sample, lo_channel, hi, hi_sample, hi_channel, sample, channels, inner, within, offsets,
                  within < sample_size, PASS, F, NUMBERS, ALPHA, EPS, LO, HI, FAST, WIDE)  # fmt: skip


@triton.jit
def _terms(offsets, keep, grad, z, delta, first, second, base, channels, inner, F: tl.constexpr, NUMBERS: tl.constexpr,
           WIDE: tl.constexpr):  # fmt: skip
    """Of l2.l2_move."""
    channel = base
    if NUMBERS == 2:
        channel = _channel(offsets - base, channels, inner, WIDE)
    _, found, g = _gradient(grad, z, delta, first, second, channel, offsets, keep, F, NUMBERS, False)
    return found, g


@triton.jit(do_not_specialize=["first", "second", "alpha", "eps", "lo", "hi"])
def step_l2(
    grad, z, delta, out, first, second, alpha, alpha_sample, eps, eps_sample, lo, lo_sample, lo_channel,
    hi, hi_sample, hi_channel, sample_size, channels, inner, F: tl.constexpr, NUMBERS: tl.constexpr,
    ALPHA: tl.constexpr, EPS: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """The L2 step of a sample. Its gradient is computed again in each pass, by the same operations."""
    COMPUTE: tl.constexpr = delta.dtype.element_ty
    sample = tl.program_id(0).to(tl.int64)
    step = size_at(alpha, alpha_sample, 0, sample, 0, None, ALPHA, COMPUTE)
    radius = size_at(eps, eps_sample, 0, sample, 0, None, EPS, COMPUTE)
    base = sample * sample_size
    c, scale, factor, infinite = l2_move((grad, z, delta, first, second, base, channels, inner, F, NUMBERS, WIDE), base,
                                         sample_size, step, radius, _terms, True, SIZE, COMPUTE)  # fmt: skip
    for begin in range(0, sample_size, SIZE):
        within = begin + tl.arange(0, SIZE).to(tl.int64)
        keep, offsets, channel = within < sample_size, base + within, sample
        if NUMBERS == 2 or LO == 2 or HI == 2:
            channel = _channel(within, channels, inner, WIDE)
        at, found, g = _gradient(grad, z, delta, first, second, channel, offsets, keep, F, NUMBERS, False)
        most = 1.7976931348623157e308 if tl.float64 == COMPUTE else 3.4028234663852886e38
        to = moved(found, g, tl.zeros(found.shape, COMPUTE), c, scale, factor, infinite, -most, most)
        _store(delta, to, at, g, out, lo, lo_sample, lo_channel, hi, hi_sample, hi_channel, sample, channel, offsets,
               keep, LO, HI)  # fmt: skip
