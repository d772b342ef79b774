"""x sigmoid(beta x) and its relatives: csrc/formulas/sigmoid_family.h."""

import triton
import triton.language as tl

from .exponential import from_lifted_zero, logistic, sigmoid, sigmoid_range
from .numbers import at_least, at_most, cut, divide, finite, vanishing_product


@triton.jit
def gated_slope(z, fast: tl.constexpr):
    """The derivative of z sigmoid(z)."""
    s, q = logistic(z, fast)
    return s + z * s * q


@triton.jit
def gated_second(z, fast: tl.constexpr):
    s, q = logistic(z, fast)
    return s * q * (2.0 + z * (q - s))


@triton.jit
def cut_for(x, factor):
    """x cut to where factor * x is in sigmoid_range, before the product: 0 * inf would be NaN."""
    inverse = 1.0 / factor
    if x.dtype == tl.float64:
        a, b = -745.7 * inverse, 672.2 * inverse
    else:
        a, b = -104.7 * inverse, 71.5 * inverse
    return cut(x, finite(tl.where(a < b, a, b)), finite(tl.where(a < b, b, a)))


@triton.jit
def silu_value(x, a, b, fast: tl.constexpr):
    z = from_lifted_zero(x)
    return z * sigmoid(sigmoid_range(z), fast)


@triton.jit
def silu_derivative(x, a, b, fast: tl.constexpr):
    return gated_slope(sigmoid_range(x), fast)


@triton.jit
def silu_second(x, a, b, fast: tl.constexpr):
    return gated_second(sigmoid_range(x), fast)


@triton.jit
def swish_value(x, beta, b, fast: tl.constexpr):
    return vanishing_product(x, sigmoid(beta * cut_for(x, beta), fast))


@triton.jit
def swish_derivative(x, beta, b, fast: tl.constexpr):
    return gated_slope(beta * cut_for(x, beta), fast)


@triton.jit
def swish_second(x, beta, b, fast: tl.constexpr):
    return beta * gated_second(beta * cut_for(x, beta), fast)


@triton.jit
def swish_parameters(x, beta, b, fast: tl.constexpr):
    inner = cut_for(x, beta)
    s, q = logistic(beta * inner, fast)
    return (inner * s) * (inner * q)


@triton.jit
def pssilu_value(x, alpha, beta, fast: tl.constexpr):
    s = sigmoid(alpha * cut_for(x, alpha), fast)
    return vanishing_product(x, (s - beta) * divide(1.0, 1.0 - beta, fast))


@triton.jit
def pssilu_derivative(x, alpha, beta, fast: tl.constexpr):
    z = alpha * cut_for(x, alpha)
    s, q = logistic(z, fast)
    return ((s - beta) + z * s * q) * divide(1.0, 1.0 - beta, fast)


@triton.jit
def pssilu_second(x, alpha, beta, fast: tl.constexpr):
    return alpha * divide(1.0, 1.0 - beta, fast) * gated_second(alpha * cut_for(x, alpha), fast)


@triton.jit
def pssilu_parameters(x, alpha, beta, fast: tl.constexpr):
    inner, inverse = cut_for(x, alpha), divide(1.0, 1.0 - beta, fast)
    s, q = logistic(alpha * inner, fast)
    return (inner * s) * (inner * q) * inverse, vanishing_product(x, -q) * inverse * inverse


@triton.jit
def gelu_tanh_low(x):
    return at_least(x, -21.5225 if x.dtype == tl.float64 else -10.708)


@triton.jit
def gelu_tanh_range(x):
    return at_most(gelu_tanh_low(x), 20.7669 if x.dtype == tl.float64 else 9.263)


@triton.jit
def gelu_tanh_inner(z):
    """2 sqrt(2 / pi) (z + 0.044715 z^3)."""
    return z * (1.59576912160573071176 + (1.59576912160573071176 * 0.044715) * (z * z))


@triton.jit
def gelu_tanh_slope(z):
    return 1.59576912160573071176 + (3.0 * 1.59576912160573071176 * 0.044715) * (z * z)


@triton.jit
def gelu_tanh_value(x, a, b, fast: tl.constexpr):
    return gelu_tanh_low(x) * sigmoid(gelu_tanh_inner(gelu_tanh_range(x)), fast)


@triton.jit
def gelu_tanh_derivative(x, a, b, fast: tl.constexpr):
    z = gelu_tanh_range(x)
    s, q = logistic(gelu_tanh_inner(z), fast)
    return s + z * s * q * gelu_tanh_slope(z)


@triton.jit
def gelu_tanh_second(x, a, b, fast: tl.constexpr):
    z = gelu_tanh_range(x)
    slope = gelu_tanh_slope(z)
    s, q = logistic(gelu_tanh_inner(z), fast)
    curvature = (6.0 * 1.59576912160573071176 * 0.044715) * z
    return s * q * (2.0 * slope + z * (curvature + slope * slope * (q - s)))


@triton.jit
def relu_smooth_backward_value(x, alpha, b, fast: tl.constexpr):
    return at_least(x, 0.0)


@triton.jit
def relu_smooth_backward_derivative(x, alpha, b, fast: tl.constexpr):
    return sigmoid(sigmoid_range(alpha * x), fast)


@triton.jit
def relu_smooth_backward_second(x, alpha, b, fast: tl.constexpr):
    s, q = logistic(sigmoid_range(alpha * x), fast)
    return alpha * (s * q)
