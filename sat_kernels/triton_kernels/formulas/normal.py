"""The normal distribution and the error function: csrc/formulas/normal.h, where they are explained."""

import triton
import triton.language as tl

from .exponential import lifted_exponential, unlift
from .numbers import at_most, cut, polynomial, quotient


@triton.jit
def normal_range(z):
    """z cut to where the density is not 0."""
    if z.dtype == tl.float64:
        return cut(z, -38.617, 38.617)
    else:
        return cut(z, -14.47, 14.47)


@triton.jit
def normal(z, fast: tl.constexpr, short: tl.constexpr = False):
    """The lower tail Phi(-|z|) and the density at z, in normal_range, from one exponential.

    ``short``: the tail with an error of 1.5e-5 (1 + z^2 / 4), for results of 16 bits and four instructions fewer.
    """
    a = tl.abs(z)
    e = lifted_exponential(-0.5 * a * a, fast)
    d = quotient(1.0, a + 4.0, fast)
    q = (a - 4.0) * d
    if z.dtype == tl.float64:
        g = polynomial(
            q,
            (0.755285130415751672, -0.6078966419718902, 0.387137400742163458, -0.186521857959934528,
             0.0603965748931864078, -0.00754018895626554936, -0.00347969240249559582, 0.00163081829097139494,
             0.000133344551284876707, -0.000231093568304999208, -1.90888930493732401e-6, 0.0000351383395051875496,
             7.15969749653720602e-7, -5.90288782828690067e-6, -6.21153892271516008e-7, 9.94370492926105018e-7,
             2.49898036861943227e-7, -1.32621489965569353e-7, -5.92188572172263276e-8, 7.02174289418517267e-9,
             5.25137606530280965e-9),
        )  # fmt: skip
    elif short:
        g = polynomial(q, (0.7553360762, -0.6075895458, 0.3861904173, -0.1906931756, 0.06022049168))
    else:
        g = polynomial(
            q,
            (0.755285111077668638, -0.607897130283186885, 0.387137860426670721, -0.186507626724596551,
             0.0604103685540722459, -0.00762749944633650261, -0.00363554220447511379, 0.00171543804982175515,
             0.000485362978478064347),
        )  # fmt: skip
    return e * (g * unlift(d)), unlift(e) * 0.398942280401432678


@triton.jit
def cdf(z, tail):
    """Phi(z). 1 + erf would lose every digit of the left tail."""
    return tl.where(z < 0, tail, 1.0 - tail)


@triton.jit
def error_function(h, fast: tl.constexpr):
    """erf(h) for h >= 0, relatively accurate."""
    a = at_most(h, 6.0)
    low = at_most(a, 1.0)
    small = low * polynomial(
        low * low,
        (1.12837916709551257, -0.376126389031835196, 0.112837916709441859, -0.0268661706431116535,
         0.00522397760611992464, -0.000854832592938005164, 0.000120552935787395736, -0.0000149247123350607891,
         1.64471319525368974e-6, -1.62063164896353735e-7, 1.3710991461964517e-8, -7.77948786413541956e-10),
    )  # fmt: skip
    tail, _ = normal(a * 1.41421356237309504880, fast)
    return tl.where(a < 1.0, small, 1.0 - 2.0 * tail)
