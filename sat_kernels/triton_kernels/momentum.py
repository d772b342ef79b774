"""MI-FGSM's step: csrc/formulas/momentum.h. A program for each sample."""

import triton
import triton.language as tl

from .elementwise import from_bits
from .perturbation import channel_and_place, flip_sign, size_at, stepped, widened, write_out


@triton.jit
def _is_infinite(size):
    """For sizes >= 0 and NaN."""
    return size > (1.7976931348623157e308 if size.dtype == tl.float64 else 3.4028234663852886e38)


@triton.jit
def _power_of_2(exponent):
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def _mean(grad, size, COMPUTE: tl.constexpr, SIZE: tl.constexpr):
    """What a gradient is divided by, in two factors of numbers that COMPUTE has; and whether some are infinite."""
    sums, small, infinite = tl.zeros((SIZE,), tl.float64), tl.zeros((SIZE,), tl.float64), tl.zeros((SIZE,), tl.float64)
    for begin in range(0, size, SIZE):
        within = begin + tl.arange(0, SIZE).to(tl.int64)
        g = tl.abs(tl.load(grad + within, mask=within < size, other=0.0).to(COMPUTE))
        far = _is_infinite(g)
        counted = tl.where((g > 0.0) & (far == 0), g, 0.0).to(tl.float64)
        sums += counted
        small += counted * 5.421010862427522e-20  # 2^-64
        infinite += tl.where(far, 1.0, 0.0)
    total, scaled, count = tl.sum(sums), tl.sum(small), tl.sum(infinite)
    large = (total > 1.7976931348623157e308) & (count == 0.0)
    total = tl.where(count > 0.0, count, tl.where(large, scaled, total))
    nothing = total == 0.0
    # Sums of float64's denormal numbers are.
    denormal = total < 2.2250738585072014e-308
    total = tl.where(nothing, 1.0, tl.where(denormal, total * 18014398509481984.0, total))  # 2^54
    bits = total.to(tl.int64, bitcast=True)
    exponent = ((bits >> 52) & 0x7FF) - 1022
    fraction = ((bits & 0xFFFFFFFFFFFFF) | (1022 << 52)).to(tl.float64, bitcast=True)
    exponent += tl.where(large, 64, 0) - tl.where(denormal, 54, 0)
    half = exponent >> 1
    first = _power_of_2(-half).to(COMPUTE)
    second = ((tl.zeros((), tl.float64) + size) / fraction * _power_of_2(half - exponent)).to(COMPUTE)
    zero = tl.zeros((), COMPUTE)
    return tl.where(nothing, zero, first), tl.where(nothing, zero, second), count > 0.0


@triton.jit
def _share(g, first, second, infinite, COMPUTE: tl.constexpr):
    size = tl.abs(g)
    one = tl.full(g.shape, 1.0, COMPUTE)
    counted = tl.where(infinite, tl.where(_is_infinite(size), flip_sign(one, g), 0.0), tl.where(size > 0.0, g, 0.0))
    return counted * first * second


@triton.jit(do_not_specialize=["alpha", "eps", "lowest", "highest", "decay"])
def momentum_step(
    x_adv, grad, x, momentum, mask, active, alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel,
    lowest, highest, decay, out, mean, deviation, out_sample, out_channel, out_place, sample_size, channels, inner,
    ALPHA: tl.constexpr, EPS: tl.constexpr, IN_ORDER: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """The arguments of perturbation.step_linf; decay: bits."""
    COMPUTE: tl.constexpr = x.dtype.element_ty
    lowest, highest, decay = from_bits(lowest, COMPUTE), from_bits(highest, COMPUTE), from_bits(decay, COMPUTE)
    sample = tl.program_id(0).to(tl.int64)
    run = True
    if active is not None:
        run = tl.load(active + sample) != 0
    if run:
        first, second, infinite = _mean(grad + sample * sample_size, sample_size, COMPUTE, SIZE)
        for begin in range(0, sample_size, SIZE):
            within = begin + tl.arange(0, SIZE).to(tl.int64)
            keep = within < sample_size
            offsets = sample * sample_size + within
            channel, place = channel_and_place(within, channels, inner)
            step = size_at(alpha, alpha_sample, alpha_channel, sample, channel, keep, ALPHA, COMPUTE)
            radius = size_at(eps, eps_sample, eps_channel, sample, channel, keep, EPS, COMPUTE)
            if mask is not None:
                step = tl.where(tl.load(mask + offsets, mask=keep), step, 0.0)
            g = widened(tl.load(grad + offsets, mask=keep))
            m = decay * tl.load(momentum + offsets, mask=keep) + _share(g, first, second, infinite, COMPUTE)
            found, clean = tl.load(x_adv + offsets, mask=keep), tl.load(x + offsets, mask=keep)
            moved = stepped(found, m, clean, step, radius, lowest, highest)
            tl.store(momentum + offsets, m, mask=keep)
            tl.store(x_adv + offsets, moved, mask=keep)
            if out is not None:
                write_out(out, moved, mean, deviation, sample, channel, place, offsets, keep,
                          out_sample, out_channel, out_place, IN_ORDER)  # fmt: skip
