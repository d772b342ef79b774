"""log(1 + exp(x)), and what replaces or contains it: csrc/formulas/softplus_family.h."""

import triton
import triton.language as tl

from .exponential import (
    LIFTED,
    LIFTED_DOUBLE,
    exponential,
    from_exp_zero,
    from_lifted_zero,
    lifted_exponential,
    logistic,
    sigmoid,
    sigmoid_range,
    unlift,
)
from .logarithm import log_of_complement, log_one_plus_fraction
from .numbers import at_most, divide, positive_part, quotient


@triton.jit
def softplus_tail(z, fast: tl.constexpr):
    """log(1 + exp(z)) for z <= 0, relatively accurate."""
    return log_one_plus_fraction(unlift(lifted_exponential(from_lifted_zero(z), fast)))


@triton.jit
def softplus_argument(x, beta, threshold):
    """beta x, and where it is above the threshold, where sigmoid is 1."""
    z, high = beta * x, 672.2 if x.dtype == tl.float64 else 71.5
    return from_lifted_zero(tl.where(z > at_most(threshold, high), high, z))


@triton.jit
def softplus_value(x, beta, threshold, fast: tl.constexpr):
    z = beta * x
    smooth = (positive_part(z) + softplus_tail(-tl.abs(z), fast)) * divide(1.0, beta, fast)
    return tl.where(z > threshold, x, smooth)


@triton.jit
def softplus_derivative(x, beta, threshold, fast: tl.constexpr):
    return sigmoid(softplus_argument(x, beta, threshold), fast)


@triton.jit
def softplus_second(x, beta, threshold, fast: tl.constexpr):
    s, q = logistic(softplus_argument(x, beta, threshold), fast)
    return beta * (s * q)


@triton.jit
def parametric_softplus_value(x, alpha, b, fast: tl.constexpr):
    return positive_part(x) + softplus_tail(-tl.abs(alpha * x), fast) * divide(1.0, alpha, fast)


@triton.jit
def parametric_softplus_derivative(x, alpha, b, fast: tl.constexpr):
    return sigmoid(sigmoid_range(alpha * x), fast)


@triton.jit
def parametric_softplus_second(x, alpha, b, fast: tl.constexpr):
    s, q = logistic(sigmoid_range(alpha * x), fast)
    return alpha * (s * q)


@triton.jit
def parametric_softplus_parameters(x, alpha, b, fast: tl.constexpr):
    z, inverse = sigmoid_range(alpha * x), divide(1.0, alpha, fast)
    s, q = logistic(z, fast)
    p = at_most(s, q)
    return -(tl.abs(z) * p + log_of_complement(p)) * inverse * inverse


@triton.jit
def mish_n(w):
    """w (w + 2), lifted as w is."""
    return w * (unlift(w) + 2.0)


@triton.jit
def mish_high(z):
    return at_most(z, 40.0 if z.dtype == tl.float64 else 20.0)


@triton.jit
def mish_value(x, a, b, fast: tl.constexpr):
    two = 2 * LIFTED_DOUBLE if x.dtype == tl.float64 else 2 * LIFTED
    z = from_lifted_zero(x)
    n = mish_n(lifted_exponential(mish_high(z), fast))
    return z * quotient(n, n + two, fast)


@triton.jit
def mish_derivative(x, a, b, fast: tl.constexpr):
    lifted = LIFTED_DOUBLE if x.dtype == tl.float64 else LIFTED
    z = mish_high(from_lifted_zero(x))
    w = lifted_exponential(z, fast)
    n = mish_n(w)
    r = quotient(1.0, n + 2 * lifted, fast)
    return r * (n + (4 * lifted) * z * ((n - w) * r))


@triton.jit
def mish_second(x, a, b, fast: tl.constexpr):
    z = at_most(from_exp_zero(x), 40.0)
    w = exponential(z, fast)
    n = w * (w + 2.0)
    r = quotient(1.0, n + 2.0, fast)
    slope = 1.0 - 2.0 * w * (n * r)
    return 4.0 * (w * r) * ((w + 1.0) * r) * (2.0 + quotient(z * slope, 1.0 + w, fast))


@triton.jit
def square_root(x, fast: tl.constexpr):
    if x.dtype == tl.float64 or fast:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def squareplus_value(x, b, unused, fast: tl.constexpr):
    a, largest = tl.abs(x), 1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38
    root = square_root(at_most(a * a, largest) + b, fast)
    # Halves, since the sum may overflow where the result does not.
    h = 0.5 * a + 0.5 * tl.where(root < a, a, root)
    return tl.where(x < 0, divide(0.25 * b, h, fast), h)


@triton.jit
def squareplus_derivative(x, b, unused, fast: tl.constexpr):
    r = square_root(x * x + b, fast)
    small = divide(0.5 * b, r * (tl.abs(x) + r), fast)
    return tl.where(x < 0, small, 1.0 - small)


@triton.jit
def squareplus_second(x, b, unused, fast: tl.constexpr):
    r = square_root(x * x + b, fast)
    return divide(0.5 * b, r * r * r, fast)


@triton.jit
def squareplus_parameters(x, b, unused, fast: tl.constexpr):
    return divide(0.25, square_root(x * x + b, fast), fast)
