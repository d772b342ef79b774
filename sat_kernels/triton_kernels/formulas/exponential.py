"""exp, exp - 1 and sigmoid: csrc/formulas/exponential.h, where bounds and coefficients are explained.

``fast``, for 16-bit types: exp by the special-function unit, whose error of 2^-22 does not show in their 8 or 11 bits.
"""

import triton
import triton.language as tl

from .numbers import at_least, cut, polynomial, quotient

# Denormal numbers are normal once multiplied by 2^LIFT.
LIFT, LIFT_DOUBLE = tl.constexpr(24), tl.constexpr(53)
LIFTED, LIFTED_DOUBLE = tl.constexpr(2.0**24), tl.constexpr(2.0**53)
UNLIFT, UNLIFT_DOUBLE = tl.constexpr(2.0**-24), tl.constexpr(2.0**-53)


@triton.jit
def exp_tail(r):
    """(exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2."""
    if r.dtype == tl.float64:
        return polynomial(
            r,
            (0.500000000000001115, 0.166666666666663999, 0.0416666666665247957, 0.0083333333335008393,
             0.00138888889452403224, 0.0001984126949666258, 0.0000248014912566301333, 2.75575916478235245e-6,
             2.76309593000922105e-7, 2.49995408577673273e-8),
        )  # fmt: skip
    else:
        return polynomial(
            r, (0.499992168683688603, 0.166671237769869914, 0.0418923023423025869, 0.00831228745832096865)
        )


@triton.jit
def exp_minus_one_tail(r):
    """The same, accurate enough for exp - 1."""
    if r.dtype == tl.float64:
        return exp_tail(r)
    else:
        return polynomial(
            r,
            (0.499999822184887923, 0.166665130866010301, 0.0416706298596716332, 0.00836950678231313437,
             0.00137075003160857902),
        )  # fmt: skip


@triton.jit
def reduce_by_log2(x, lift: tl.constexpr):
    """2^(n + lift) and r, where x = n log(2) + r with |r| <= log(2) / 2."""
    # log(2) in two parts: the interpreter has no fused multiply-add, for which one would do.
    if x.dtype == tl.float64:
        magic: tl.constexpr = 6755399441055744.0 + 1023.0 + lift
        shifted = x * 1.44269504088896340736 + magic
        n = shifted - magic
        scale = (shifted.to(tl.int64, bitcast=True) << 52).to(tl.float64, bitcast=True)
        return scale, (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    else:
        magic: tl.constexpr = 12582912.0 + 127.0 + lift
        shifted = x * 1.44269504088896340736 + magic
        n = shifted - magic
        scale = (shifted.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)
        return scale, (x - n * 0.693359375) - n * -2.12194440054690583e-4


@triton.jit
def scaled_exponential(x, lift: tl.constexpr, fast: tl.constexpr):
    """exp(x) 2^lift, where that is a normal number; below, it goes to 0."""
    if fast:
        return tl.exp2(x * 1.44269504088896340736 + lift)
    else:
        scale, r = reduce_by_log2(x, lift)
        scaled = scale * r
        return (scale + scaled) + (scaled * r) * exp_tail(r)


@triton.jit
def from_exp_zero(x):
    """x cut to where exp(x) is normal."""
    return at_least(x, -708.9 if x.dtype == tl.float64 else -88.1)


@triton.jit
def exponential(x, fast: tl.constexpr):
    return scaled_exponential(x, 0, fast)


@triton.jit
def from_lifted_zero(x):
    """x cut to where exp(x), lifted, is normal."""
    return at_least(x, -745.7 if x.dtype == tl.float64 else -104.7)


@triton.jit
def lifted_exponential(x, fast: tl.constexpr):
    """exp(x) 2^LIFT: rounded to denormal results once the factor is taken away."""
    return scaled_exponential(x, LIFT_DOUBLE if x.dtype == tl.float64 else LIFT, fast)


@triton.jit
def unlift(x):
    return x * (UNLIFT_DOUBLE if x.dtype == tl.float64 else UNLIFT)


@triton.jit
def half_exponential(x):
    """exp(x) / 2, and less 1 / 2 without cancellation."""
    scale, r = reduce_by_log2(x, -1)
    scaled = scale * r
    higher = (scaled * r) * exp_minus_one_tail(r)
    return (scale + scaled) + higher, ((scale - 0.5) + scaled) + higher


@triton.jit
def sigmoid_range(z):
    """z cut to where sigmoid(z) and sigmoid(-z) are not 0."""
    if z.dtype == tl.float64:
        return cut(z, -745.7, 672.2)
    else:
        return cut(z, -104.7, 71.5)


@triton.jit
def logistic(z, fast: tl.constexpr):
    """sigmoid(z) and sigmoid(-z), in sigmoid_range, without cancellation."""
    double: tl.constexpr = z.dtype == tl.float64
    w = scaled_exponential(-z, -LIFT_DOUBLE if double else -LIFT, fast)
    d = quotient(1.0, w + (UNLIFT_DOUBLE if double else UNLIFT), fast)
    return unlift(d), w * d


@triton.jit
def sigmoid(z, fast: tl.constexpr):
    double: tl.constexpr = z.dtype == tl.float64
    one = UNLIFT_DOUBLE if double else UNLIFT
    return quotient(one, one + scaled_exponential(-z, -LIFT_DOUBLE if double else -LIFT, fast), fast)
