"""What the steps of the L2 and L1 balls have in common: csrc/formulas/ball.h. A program for each sample.

Numbers that are held there are computed again here, by the same operations: launched without contraction, they are the
same in every pass. Only the last pass writes.
"""

import triton
import triton.language as tl

from .perturbation import bits_of, channel_and_place, flip_sign, sum_rounded_down, widened, write_out


@triton.jit
def moved_by(x, delta):
    """x + delta, rounded towards x: the stored difference is no larger than |delta|."""
    return flip_sign(sum_rounded_down(flip_sign(x, delta), tl.abs(delta)), delta)


@triton.jit
def far(dtype: tl.constexpr):
    """Beyond this, numbers count as this: 2^900, 2^100."""
    return tl.full((), 8.452712498170644e270 if dtype == tl.float64 else 1.2676506002282294e30, dtype)


@triton.jit
def not_far(x):
    most = far(x.dtype)
    return cut(x, -most, most)


@triton.jit
def cut(x, lowest, highest):
    x = tl.where(x < lowest, lowest, x)
    return tl.where(x > highest, highest, x)


@triton.jit
def is_infinite(x):
    return tl.abs(x) > (1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38)


@triton.jit
def next_number(x):
    """The one above x >= 0."""
    return (bits_of(x) + 1).to(x.dtype, bitcast=True)


@triton.jit
def loaded(x_adv, grad, x, mask, offsets, keep):
    """x_adv, the gradient, 0 where there is none, and x."""
    found, clean = tl.load(x_adv + offsets, mask=keep, other=0.0), tl.load(x + offsets, mask=keep, other=0.0)
    g = tl.zeros(found.shape, found.dtype)
    if grad is not None:
        g = widened(tl.load(grad + offsets, mask=keep, other=0.0))
        if mask is not None:
            g = tl.where(tl.load(mask + offsets, mask=keep, other=0), g, 0.0)
    return found, g, clean


@triton.jit
def store(x_adv, moved, out, mean, deviation, sample, channels, inner, within, offsets, keep, out_sample, out_channel,
          out_place, IN_ORDER: tl.constexpr):  # fmt: skip
    tl.store(x_adv + offsets, moved, mask=keep)
    if out is not None:
        channel, place = channel_and_place(within, channels, inner)
        write_out(out, moved, mean, deviation, sample, channel, place, offsets, keep,
                  out_sample, out_channel, out_place, IN_ORDER)  # fmt: skip
