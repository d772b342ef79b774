"""Random starts: csrc/formulas/starts.h. Noise is computed where it is needed, a second time if need be."""

import triton
import triton.language as tl

from .elementwise import from_bits
from .formulas.numbers import at_least, at_most
from .formulas.random import laplace_of, normal_of, sample_fraction, symmetric_uniform
from .perturbation import flip_sign, sum_rounded_down


@triton.jit
def _noise(index, seed, sample, restart, sample_size, channels, CHANNELS: tl.constexpr, NOISE: tl.constexpr):
    """Of the elements at ``index``, int64, in the sample's memory."""
    if CHANNELS:
        index = (index % channels) * (sample_size // channels) + index // channels
    u = symmetric_uniform(index.to(tl.uint32), seed, sample, restart)
    if NOISE == "normal":
        return normal_of(u)
    elif NOISE == "laplace":
        return laplace_of(u)
    elif NOISE == "none":
        return u * 0.0
    else:
        return u


@triton.jit
def _fraction(seed, sample, restart, sample_size, RADIUS: tl.constexpr):
    """By how much of eps the noise is to be long."""
    u = sample_fraction(seed, sample, restart)
    if RADIUS == "surface":
        return u * 0.0 + 1.0
    elif RADIUS == "uniform":
        return u
    else:
        return tl.exp(tl.log(u) / sample_size.to(tl.float64))


@triton.jit
def _size(size, sample, OF: tl.constexpr, COMPUTE: tl.constexpr):
    """OF: a number's bits, or a pointer to one for all, or to one for each sample."""
    if OF == "number":
        return from_bits(size, COMPUTE)
    elif OF == "one":
        return tl.load(size)
    else:
        return tl.load(size + sample)


@triton.jit(
    do_not_specialize=["scale", "eps", "lowest", "highest", "seed", "restart", "sample_size", "channels", "chunks"]
)
def start(
    x, x_adv, scale, eps, lowest, highest, seed, restart, sample_ids, sample_size, channels, chunks,
    NOISE: tl.constexpr, RADIUS: tl.constexpr, NORM: tl.constexpr, SCALE_OF: tl.constexpr, EPS_OF: tl.constexpr,
    SEED_OF: tl.constexpr, RESTART_OF: tl.constexpr, CHANNELS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Dense memory, ``chunks`` programs for each sample; one where there are lengths to be found."""
    COMPUTE: tl.constexpr = x.dtype.element_ty
    program = tl.program_id(0).to(tl.int64)
    chunks = chunks.to(tl.int64)
    sample, chunk = program // chunks, program % chunks
    lowest, highest = from_bits(lowest, COMPUTE), from_bits(highest, COMPUTE)
    scale, eps = _size(scale, sample, SCALE_OF, COMPUTE), _size(eps, sample, EPS_OF, COMPUTE)
    seed = tl.load(seed) if SEED_OF else seed.to(tl.int64)
    restart = tl.load(restart) if RESTART_OF else restart.to(tl.int64)
    sample_id = sample if sample_ids is None else tl.load(sample_ids + sample)
    sample_size = sample_size.to(tl.int64)
    lane = tl.arange(0, SIZE).to(tl.int64)

    # The noise's factor.
    factor = scale if NORM == "Linf" else scale.to(tl.float64)
    if RADIUS != "free" and (NORM != "Linf" or RADIUS != "bounded"):
        terms = tl.zeros((SIZE,), tl.float64)
        for begin in range(0, sample_size, SIZE):
            index = begin + lane
            n = tl.abs(_noise(index, seed, sample_id, restart, sample_size, channels, CHANNELS, NOISE)).to(tl.float64)
            n = tl.where(index < sample_size, n, 0.0)
            if NORM == "Linf":
                terms = tl.maximum(terms, n)
            elif NORM == "L1":
                terms += n
            else:
                terms += n * n
        if NORM == "Linf":
            fraction = _fraction(seed, sample_id, restart, sample_size, RADIUS)
            factor = (eps.to(tl.float64) * fraction / tl.max(terms, 0)).to(COMPUTE)
        else:
            length = tl.sum(terms, 0)
            if NORM == "L2":
                length = tl.sqrt(length)
            # 1 - 2^-21 and 1 - 2^-22: csrc/formulas/starts.h.
            double: tl.constexpr = x.dtype.element_ty == tl.float64
            most = eps.to(tl.float64) * (0.9999997615814208984375 if double else 0.999999523162841796875)
            if RADIUS == "bounded":
                factor = tl.where(factor * length > most, most / length, factor)
            else:
                factor = most * _fraction(seed, sample_id, restart, sample_size, RADIUS) / length

    base = sample * sample_size
    for begin in range(chunk * SIZE, sample_size, chunks * SIZE):
        index = begin + lane
        mask = index < sample_size
        n = _noise(index, seed, sample_id, restart, sample_size, channels, CHANNELS, NOISE)
        clean = tl.load(x + base + index, mask=mask)
        if NORM == "Linf":
            moved = clean + flip_sign(tl.abs(n).to(COMPUTE) * factor, n.to(COMPUTE))
            # Mirrored so that the noise went up from x: then only the upper bound matters.
            side = moved - clean
            top, mirrored = sum_rounded_down(flip_sign(clean, side), eps), flip_sign(moved, side)
            moved = flip_sign(tl.where(mirrored > top, top, mirrored), side)
        else:
            smallest = from_bits(chunk - chunk + 1, COMPUTE)
            far = at_least((tl.abs(n).to(tl.float64) * factor).to(COMPUTE) - smallest, 0.0)
            moved = flip_sign(sum_rounded_down(flip_sign(clean, n.to(COMPUTE)), far), n.to(COMPUTE))
        tl.store(x_adv + base + index, at_most(at_least(moved, lowest), highest), mask=mask)
