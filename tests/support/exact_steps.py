"""The Linf steps element for element: numpy's roundings for sums, rational arithmetic for the ball."""

import functools
import math
from fractions import Fraction

import numpy as np
import torch

NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


@functools.lru_cache(1 << 16)
def bounds(pixel: float, eps: float, dtype: torch.dtype) -> tuple[float, float]:
    """The least and the largest number of ``dtype`` in [pixel - eps, pixel + eps]."""
    upper = _rounded_up(-(Fraction(pixel) + Fraction(eps)), dtype)
    return _rounded_up(Fraction(pixel) - Fraction(eps), dtype), -upper


def _rounded_up(value: Fraction, dtype: torch.dtype) -> float:
    number, top = NUMPY[dtype](float(value)), NUMPY[dtype](math.inf)
    while Fraction(number.item()) < value:
        number = np.nextafter(number, top)
    while Fraction((before := np.nextafter(number, -top)).item()) >= value:
        number = before
    return number.item()


def project(moved, pixel: float, eps: float, box: tuple[float, float], dtype: torch.dtype) -> float:
    """``moved`` in the ball and in the box, which has numbers of ``dtype`` for bounds."""
    moved = float(moved)
    if math.isnan(moved):
        return moved
    lower, upper = bounds(pixel, eps, dtype)
    return min(max(min(max(moved, lower), upper), box[0]), box[1])


def step(x_adv: float, g: float, pixel: float, eps: float, alpha: float, box: tuple, dtype: torch.dtype) -> float:
    number = NUMPY[dtype]
    direction = 0.0 if math.isnan(g) else (g > 0) - (g < 0)
    return project(number(x_adv) + number(alpha) * number(direction), pixel, eps, box, dtype)


def apgd(x_adv, g, pixel, eps, alpha, box, dtype, x_prev: float, first: bool) -> float:
    led = step(x_adv, g, pixel, eps, alpha, box, dtype)
    if first:
        return led
    number = NUMPY[dtype]
    here = number(x_adv)
    part = number(0.75) * (number(led) - here)
    last = number(0.25) * (here - number(x_prev))
    return project((here + part) + last, pixel, eps, box, dtype)


def momentum(before: list, g: list, decay: float) -> list[tuple[float, float]]:
    """A sample's new momentum, and the sum of the sizes that it is made of."""
    g = [0.0 if math.isnan(v) else v for v in g]
    if any(map(math.isinf, g)):
        g = [math.copysign(1.0, v) if math.isinf(v) else 0.0 for v in g]
    mean = sum(abs(Fraction(v)) for v in g) / len(g)
    shares = [Fraction(v) / mean if mean else Fraction(0) for v in g]
    parts = [(Fraction(decay) * Fraction(m), s) for m, s in zip(before, shares, strict=True)]
    return [(float(a + b), float(abs(a) + abs(b))) for a, b in parts]
