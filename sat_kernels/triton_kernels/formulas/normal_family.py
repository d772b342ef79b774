"""Activations by the normal distribution: csrc/formulas/normal_family.h."""

import triton
import triton.language as tl

from .normal import cdf, normal, normal_range
from .numbers import at_least, at_most, cut, finite, vanishing_product


@triton.jit
def gelu_value(x, a, b, fast: tl.constexpr):
    low = at_least(x, -38.617 if x.dtype == tl.float64 else -14.47)
    z = normal_range(low)
    tail, _ = normal(z, fast, fast)
    return low * cdf(z, tail)


@triton.jit
def gelu_derivative(x, a, b, fast: tl.constexpr):
    z = normal_range(x)
    # Not the short form, whose error would show where this is 0.
    tail, density = normal(z, fast)
    return cdf(z, tail) + z * density


@triton.jit
def gelu_second(x, a, b, fast: tl.constexpr):
    z = normal_range(x)
    _, density = normal(z, fast)
    return density * (2.0 - z * z)


@triton.jit
def smu_factor(alpha, mu):
    # An infinite mu, as 1e6 is in float16, makes it a leaky ReLU.
    return finite(1.41421356237309504880 * mu * (1.0 - alpha))


@triton.jit
def smu_range(x, factor):
    """x cut to where factor * x is in normal_range, before the product: 0 * inf would be NaN."""
    largest: tl.constexpr = 1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38
    high = at_most((38.617 if x.dtype == tl.float64 else 14.47) / tl.abs(factor), largest)
    return cut(x, -high, high)


@triton.jit
def smu_value(x, alpha, mu, fast: tl.constexpr):
    factor = smu_factor(alpha, mu)
    z = factor * smu_range(x, factor)
    tail, _ = normal(z, fast)
    return vanishing_product(x, alpha + (1.0 - alpha) * cdf(z, tail))


@triton.jit
def smu_derivative(x, alpha, mu, fast: tl.constexpr):
    factor = smu_factor(alpha, mu)
    z = factor * smu_range(x, factor)
    tail, density = normal(z, fast)
    return alpha + (1.0 - alpha) * (cdf(z, tail) + z * density)


@triton.jit
def smu_second(x, alpha, mu, fast: tl.constexpr):
    factor = smu_factor(alpha, mu)
    z = factor * smu_range(x, factor)
    _, density = normal(z, fast)
    return (1.0 - alpha) * factor * density * (2.0 - z * z)


@triton.jit
def smu_parameters(x, alpha, mu, fast: tl.constexpr):
    factor = smu_factor(alpha, mu)
    inner = smu_range(x, factor)
    z, scaled = factor * inner, (1.0 - alpha) * inner
    tail, density = normal(z, fast)
    return (
        vanishing_product(x, cdf(-z, tail) - z * density),
        (1.41421356237309504880 * density * scaled) * scaled,
    )
