"""Selections and polynomials. As in csrc/formulas/number.h, selections keep NaN.

A float in an expression is taken in the tensor's dtype, in full precision; as an argument of ``tl.maximum`` or
``tl.where`` it is rounded to float32 first, so that those are only given bounds that need not be exact.
"""

import triton
import triton.language as tl


@triton.jit
def at_least(x, low):
    # One instruction, where a comparison and a selection are two.
    return tl.maximum(x, low, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def at_most(x, high):
    return tl.minimum(x, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def cut(x, low, high):
    return at_most(at_least(x, low), high)


@triton.jit
def finite(x):
    """x with infinities replaced by the largest numbers."""
    largest: tl.constexpr = 1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38
    return cut(x, -largest, largest)


@triton.jit
def positive_part(x):
    """max(x, 0), and 0 for NaN, which the other summands then carry."""
    return tl.where(x > 0, x, 0.0)


@triton.jit
def vanishing_product(x, factor):
    """x * factor where the factor goes to 0 faster than x to infinity: 0 instead of inf * 0."""
    return tl.where(factor == 0, 0.0, x * factor)


@triton.jit
def divide(x, y, fast: tl.constexpr):
    """x / y, rounded to nearest; ``fast``: within two units of float32."""
    if fast or y.dtype == tl.float64:
        return x / y
    else:
        return tl.div_rn(x, y)


@triton.jit
def quotient(x, y, fast: tl.constexpr):
    """The same within 0.51 units, for finite y: 5 instructions where rounding any quotient takes 20 and a branch.

    Two units would use up a third of what the targets allow.
    """
    if fast or y.dtype == tl.float64:
        return x / y
    else:
        r = 1.0 / y
        q = x * r
        return tl.fma(tl.fma(-q, y, x), r, q)


@triton.jit
def polynomial(x, coefficients):
    """By Horner; the constant comes first."""
    last: tl.constexpr = len(coefficients) - 1
    y = coefficients[last]
    for k in tl.static_range(last):
        y = coefficients[last - 1 - k] + x * y
    return y
