"""The Linf step of projected gradient descent: csrc/formulas/perturbation.h, bit for bit.

Every operation is an addition, a comparison or one on bits, so that nothing can be contracted; it is launched without
contraction all the same.
"""

import triton
import triton.language as tl

from .elementwise import from_bits


@triton.jit
def _bits(x):
    return x.to(tl.int64 if x.dtype == tl.float64 else tl.int32, bitcast=True)


@triton.jit
def flip_sign(x, sign):
    """x with its sign flipped where ``sign`` is negative."""
    mask = -0x8000000000000000 if x.dtype == tl.float64 else -0x80000000
    return (_bits(x) ^ (_bits(sign) & mask)).to(x.dtype, bitcast=True)


@triton.jit
def sum_rounded_down(a, b):
    """a + b rounded down, for b >= 0."""
    total = a + b
    too_large = (total - a > b) | (total - b > a)
    # The next number towards -inf: bit patterns grow away from zero. A sum of zero is exact.
    unit = 1 | (_bits(total) >> (63 if a.dtype == tl.float64 else 31))
    return (_bits(total) - tl.where(too_large, unit, 0)).to(a.dtype, bitcast=True)


@triton.jit
def _stepped(x_adv, g, x, alpha, eps, lowest, highest):
    # A NaN gradient makes no step, and NaN in x_adv stays.
    moved = x_adv + tl.where(tl.abs(g) > 0, flip_sign(alpha, g.to(x.dtype)), 0.0)
    # Mirrored so that the step went up from x: then only the upper bound matters.
    side = moved - x
    top, mirrored = sum_rounded_down(flip_sign(x, side), eps), flip_sign(moved, side)
    projected = flip_sign(tl.where(mirrored > top, top, mirrored), side)
    raised = tl.where(projected < lowest, lowest, projected)
    return tl.where(raised > highest, highest, raised)


@triton.jit
def _elements(
    x_adv, grad, x, alpha, eps, lowest, highest, sample_size, begin, offsets, mask,
    PER_SAMPLE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    if PER_SAMPLE:
        # One 64-bit division for all elements, and a short one for each.
        sample = begin // sample_size
        within = begin - sample * sample_size
        if sample_size.dtype == tl.int32:
            sample += (within.to(tl.uint32) + tl.arange(0, SIZE).to(tl.uint32)) // sample_size.to(tl.uint32)
        else:
            sample += (within + tl.arange(0, SIZE)) // sample_size
        alpha, eps = tl.load(alpha + sample, mask=mask), tl.load(eps + sample, mask=mask)
    g = tl.load(grad + offsets, mask=mask)
    if g.dtype.primitive_bitwidth == 16:
        g = g.to(tl.float32)
    found = tl.load(x_adv + offsets, mask=mask)
    stepped = _stepped(found, g, tl.load(x + offsets, mask=mask), alpha, eps, lowest, highest)
    tl.store(x_adv + offsets, stepped, mask=mask)


@triton.jit(do_not_specialize=["alpha", "eps", "lowest", "highest", "sample_size"])
def step_linf(
    x_adv, grad, x, alpha, eps, lowest, highest, size, sample_size,
    PER_SAMPLE: tl.constexpr, SIZE: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """Dense memory. alpha, eps: bits, or pointers to one number per ``sample_size`` elements; lowest, highest: bits."""
    COMPUTE: tl.constexpr = x.dtype.element_ty
    lowest, highest = from_bits(lowest, COMPUTE), from_bits(highest, COMPUTE)
    if not PER_SAMPLE:
        alpha, eps = from_bits(alpha, COMPUTE), from_bits(eps, COMPUTE)
    begin = tl.program_id(0).to(tl.int64) * SIZE
    offsets = begin + tl.arange(0, SIZE)
    whole = begin + SIZE <= size if TAIL else True
    if whole:
        _elements(x_adv, grad, x, alpha, eps, lowest, highest, sample_size, begin, offsets, None, PER_SAMPLE, SIZE)
    else:
        mask = offsets < size
        _elements(x_adv, grad, x, alpha, eps, lowest, highest, sample_size, begin, offsets, mask, PER_SAMPLE, SIZE)
