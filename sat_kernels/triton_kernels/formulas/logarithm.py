"""log(1 + t) for t >= 0: csrc/formulas/logarithm.h, where it is explained."""

import triton
import triton.language as tl

from .numbers import polynomial, quotient


@triton.jit
def artanh_tail(z):
    """(artanh(s) - s) / s^3, for z = s^2 <= 1/9."""
    if z.dtype == tl.float64:
        return polynomial(
            z,
            (0.333333333333332874, 0.200000000000300132, 0.142857142799414565, 0.111111116196757684,
             0.090908845129910226, 0.0769301936501242858, 0.0665382095318295358, 0.0602733604120679792,
             0.0427958248126333741, 0.0831120010870142016),
        )  # fmt: skip
    else:
        return polynomial(z, (0.333332701729631365, 0.200074109725090437, 0.140526175388633052, 0.137647736982454185))


@triton.jit
def split_log_one_plus(t, fast: tl.constexpr):
    """multiple, f, s, rest: log(1 + t) = multiple + 2 s + rest, and where t < 1, multiple is 0 and f is t."""
    if t.dtype == tl.float64:
        exponent = ((1.0 + t).to(tl.int64, bitcast=True) & 0x7FF0000000000000) - 0x3FF0000000000000
        scale = (0x3FF0000000000000 - exponent).to(tl.float64, bitcast=True)
        k = ((exponent >> 52) | 0x4330000000000000).to(tl.float64, bitcast=True) - 4503599627370496.0
    else:
        exponent = ((1.0 + t).to(tl.int32, bitcast=True) & 0x7F800000) - 0x3F800000
        scale = (0x3F800000 - exponent).to(tl.float32, bitcast=True)
        k = ((exponent >> 23) | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0
    f = t * scale + (scale - 1.0)
    s = quotient(f, 2.0 + f, fast)
    z = s * s
    return k * 0.693147180559945309417, f, s, 2.0 * s * z * artanh_tail(z)


@triton.jit
def log_one_plus_fraction(t):
    """log(1 + t) for 0 <= t <= 1, relatively accurate."""
    if t.dtype == tl.float64:
        s = t / (2.0 + t)
        z = s * s
        return t - s * (t - 2.0 * z * artanh_tail(z))
    else:
        return t * polynomial(
            t,
            (0.999999969886239911, -0.499994931695336449, 0.333190971071506707, -0.248429833920683296,
             0.191060088007455532, -0.136632466697070563, 0.078225931866174469, -0.0295052108447835774,
             0.0052326837597104776),
        )  # fmt: skip


@triton.jit
def log_of_complement(p):
    """-log(1 - p) for 0 <= p <= 1/2, relatively accurate."""
    if p.dtype == tl.float64:
        s = p / (2.0 - p)
        z = s * s
        return p + s * (p + 2.0 * z * artanh_tail(z))
    else:
        return p * polynomial(
            p,
            (1.00000002272590694, 0.499992852871063388, 0.333700606468839991, 0.24280519259894464,
             0.269611886851237378, -0.203535240516202069, 1.25766085092017357, -1.69580065791033241,
             1.44110206561356957),
        )  # fmt: skip
