"""Random numbers that are a function of a key and a counter: csrc/formulas/random.h, where they are explained."""

import triton
import triton.language as tl

from .logarithm import split_log_one_plus
from .numbers import polynomial, quotient


@triton.jit
def _high_and_low(a, b: tl.constexpr):
    product = a.to(tl.uint64) * b
    return (product >> 32).to(tl.uint32), product.to(tl.uint32)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10: four words of 32 bits; the keys are uint64 of 32 bits."""
    for _ in tl.static_range(10):
        high0, low0 = _high_and_low(c0, 0xD2511F53)
        high1, low1 = _high_and_low(c2, 0xCD9E8D57)
        c0, c1 = high1 ^ c1 ^ k0.to(tl.uint32), low1
        c2, c3 = high0 ^ c3 ^ k1.to(tl.uint32), low0
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


@triton.jit
def random_words(block, seed, sample, restart):
    """Those of the elements 4 block to 4 block + 3. seed, sample, restart: int64."""
    zero = block ^ block
    return philox(
        block, zero | restart.to(tl.uint32), zero | sample.to(tl.uint32), zero | (sample >> 32).to(tl.uint32),
        seed.to(tl.uint64) & 0xFFFFFFFF, (seed >> 32).to(tl.uint64) & 0xFFFFFFFF,
    )  # fmt: skip


@triton.jit
def sample_fraction(seed, sample, restart):
    """One float64 of (0, 1) for the whole sample."""
    block = (sample | 0xFFFFFFFF).to(tl.uint32)  # all ones
    word, _, _, _ = random_words(block, seed, sample, restart)
    return (2.0 * (word >> 8).to(tl.float64) + 1.0) * 2.9802322387695312e-08


@triton.jit
def symmetric_uniform(element, seed, sample, restart):
    """Uniform in (-1, 1): odd multiples of 2^-24. element: uint32."""
    w0, w1, w2, w3 = random_words(element >> 2, seed, sample, restart)
    odd = (element & 1) != 0
    word = tl.where((element & 2) != 0, tl.where(odd, w3, w2), tl.where(odd, w1, w0))
    return (((word >> 7) & 0x1FFFFFE).to(tl.int32) - 0xFFFFFF).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def _log_one_plus(t):
    multiple, _, s, rest = split_log_one_plus(t, False)
    return multiple + (2.0 * s + rest)


@triton.jit
def normal_of(u):
    """The normal number of a symmetric uniform one."""
    a = tl.abs(u)
    w = _log_one_plus(quotient(a * a, (1.0 - a) * (1.0 + a), False))
    central = polynomial(
        w - 2.5,
        (2.12331322449210196, 0.348803642319227358, -0.00590612187687531774, -0.00177431682434359742,
         0.000307359568404450508, -5.79007480303364625e-6, -4.50551980154310962e-6, 4.46372868725232997e-7),
    )  # fmt: skip
    tail = polynomial(
        tl.sqrt_rn(w) - 3.0,
        (4.00643523682708599, 1.41658387959078284, 0.0133151545432314051, -0.010824597453000481,
         0.00832446126849773485, -0.0050400356308781916, 0.00148222276519863857),
    )  # fmt: skip
    return u * tl.where(w < 5.0, central, tail)


@triton.jit
def laplace_of(u):
    a = tl.abs(u)
    size = _log_one_plus(quotient(a, 1.0 - a, False))
    return tl.where(u < 0, -size, size)
