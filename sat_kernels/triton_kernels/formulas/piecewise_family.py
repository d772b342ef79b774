"""Activations with a formula of its own on each side of 0: csrc/formulas/piecewise_family.h."""

import triton
import triton.language as tl

from .exponential import exponential, from_exp_zero, half_exponential
from .logarithm import split_log_one_plus
from .numbers import at_least, at_most, cut, divide, quotient


@triton.jit
def elu_value(x, alpha, b, fast: tl.constexpr):
    # What the exponential is where x > 0 does not matter.
    _, half_minus_one = half_exponential(at_least(x, -38.0 if x.dtype == tl.float64 else -18.0))
    return tl.where(x < 0, (alpha + alpha) * half_minus_one, x)


@triton.jit
def elu_power(x, alpha, fast: tl.constexpr):
    return alpha * exponential(from_exp_zero(x), fast)


@triton.jit
def elu_derivative(x, alpha, b, fast: tl.constexpr):
    return tl.where(x > 0, 1.0, elu_power(x, alpha, fast))


@triton.jit
def elu_second(x, alpha, b, fast: tl.constexpr):
    return tl.where(x >= 0, 0.0, elu_power(x, alpha, fast))


@triton.jit
def celu_value(x, alpha, b, fast: tl.constexpr):
    # torch takes a negative alpha too, and then the argument is positive where x is negative.
    z = x * divide(1.0, alpha, fast)
    _, half_minus_one = half_exponential(cut(z, -38.0, 709.9) if x.dtype == tl.float64 else cut(z, -18.0, 88.9))
    return tl.where(x < 0, (alpha + alpha) * half_minus_one, x)


@triton.jit
def celu_power(x, alpha, fast: tl.constexpr):
    z = x * divide(1.0, alpha, fast)
    return exponential(at_most(from_exp_zero(z), 709.4 if x.dtype == tl.float64 else 88.3), fast)


@triton.jit
def celu_derivative(x, alpha, b, fast: tl.constexpr):
    return tl.where(x > 0, 1.0, celu_power(x, alpha, fast))


@triton.jit
def celu_second(x, alpha, b, fast: tl.constexpr):
    return tl.where(x >= 0, 0.0, celu_power(x, alpha, fast) * divide(1.0, alpha, fast))


@triton.jit
def smooth_relu_argument(x, beta):
    # Above, the logarithm no longer counts, and inf / inf would be NaN.
    return cut(beta * x, 0.0, 1e30)


@triton.jit
def smooth_relu_value(x, beta, b, fast: tl.constexpr):
    t = smooth_relu_argument(x, beta)
    multiple, f, s, rest = split_log_one_plus(t, fast)
    # Where t is small its difference to log(1 + t) cancels: f = t - multiple is left out, and 2 s = f - f s.
    smooth = ((t - f) - multiple + (f * s - rest)) * divide(1.0, beta, fast)
    return tl.where(beta * x < 1e30, smooth, x)


@triton.jit
def smooth_relu_derivative(x, beta, b, fast: tl.constexpr):
    t = smooth_relu_argument(x, beta)
    return quotient(t, 1.0 + t, fast)


@triton.jit
def smooth_relu_second(x, beta, b, fast: tl.constexpr):
    d = quotient(1.0, 1.0 + smooth_relu_argument(x, beta), fast)
    return tl.where(x <= 0, 0.0, beta * d * d)


@triton.jit
def smooth_relu_parameters(x, beta, b, fast: tl.constexpr):
    t, inverse = smooth_relu_argument(x, beta), divide(1.0, beta, fast)
    d = quotient(t, 1.0 + t, fast)
    multiple, _, s, rest = split_log_one_plus(t, fast)
    # 2 s - d = s d where t < 1.
    return ((multiple + tl.where(t < 1.0, s * d, 2.0 * s - d)) + rest) * inverse * inverse
