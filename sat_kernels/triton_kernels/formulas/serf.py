"""x erf(log(1 + exp(x))): csrc/formulas/serf.h, where the polynomials are explained."""

import triton
import triton.language as tl

from .exponential import exponential, from_lifted_zero, half_exponential, lifted_exponential, unlift
from .logarithm import log_one_plus_fraction
from .normal import error_function
from .numbers import at_most, polynomial, positive_part, quotient


@triton.jit
def serf_parts(z, fast: tl.constexpr):
    """h = log(1 + exp(z)), sigmoid(z), and erf's derivative at h."""
    t = unlift(lifted_exponential(from_lifted_zero(-tl.abs(z)), fast))
    d = quotient(1.0, 1.0 + t, fast)
    h = positive_part(z) + log_one_plus_fraction(t)
    return h, tl.where(z < 0, t * d, d), 1.12837916709551257390 * exponential(-h * h, fast)


@triton.jit
def serf_factor(x, fast: tl.constexpr):
    """erf(h) and its derivative by x."""
    if x.dtype == tl.float64:
        h, s, density = serf_parts(x, fast)
        return error_function(h, fast), density * s
    else:
        # Where a polynomial is not for this x, it is finite and not selected.
        t = unlift(lifted_exponential(x, fast))
        left = t * polynomial(
            t,
            (-1.12837919111397735, -0.0724264739960509389, 0.157633794191243347, -0.127423111538042936,
             0.0836795319528932714, -0.0442924486087276079, 0.0161865869619614711, -0.00290012167423695857),
        )  # fmt: skip
        right = polynomial(
            x,
            (-1.11792147120207422, -1.06726261017513427, -0.466542581658601628, -0.106468801634154438,
             -0.00638454220217856583, 0.00411858319710167416, 0.000567279029141739845, -0.000361680197169340115,
             0.000039336423053338102),
        )  # fmt: skip
        left_slope = t * polynomial(
            t,
            (1.12837943941528992, 0.144823737018233326, -0.472354170626859054, 0.505925748286150145,
             -0.406245746795590912, 0.24588373021850453, -0.0973594930711855602, 0.0182164168523679581),
        )  # fmt: skip
        right_slope = polynomial(
            x,
            (1.06727250270742563, 0.932850090948156537, 0.321002422686982131, 0.0208300137313326976,
             -0.0134448603316087868, -0.00939757994569936637, 0.0053251837304955877, -0.00098988900509520726,
             0.0000657626415363455895),
        )  # fmt: skip
        half_power, half_minus_one = half_exponential(tl.where(x < 0, left, right))
        return -2.0 * half_minus_one, 2.0 * half_power * tl.where(x < 0, left_slope, right_slope)


@triton.jit
def serf_high(z):
    return at_most(z, 9.0 if z.dtype == tl.float64 else 4.8)


@triton.jit
def serf_value(x, a, b, fast: tl.constexpr):
    z = from_lifted_zero(x)
    factor, _ = serf_factor(serf_high(z), fast)
    return z * factor


@triton.jit
def serf_derivative(x, a, b, fast: tl.constexpr):
    z = serf_high(from_lifted_zero(x))
    factor, slope = serf_factor(z, fast)
    return factor + z * slope


@triton.jit
def serf_second(x, a, b, fast: tl.constexpr):
    z = at_most(from_lifted_zero(x), 9.0)
    h, s, density = serf_parts(z, fast)
    return density * s * (2.0 + z * ((1.0 - s) - 2.0 * h * s))
