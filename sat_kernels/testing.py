"""Checks that users can run on any attack's output."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# 2^1074 times any float64 is an integer.
_SCALE = 1 << 1074


@dataclass(frozen=True)
class FeasibilityReport:
    """What :func:`check_feasible` found.

    violations: pixels (Linf, box) or samples (L1, L2) outside. max_excess: by how much at most; 0.0 if none.
    """

    violations: int
    max_excess: float


def check_feasible(
    x_adv: Tensor,
    x: Tensor,
    eps: float | Tensor,
    norm: str = "Linf",
    clip_min: float = 0.0,
    clip_max: float = 1.0,
) -> FeasibilityReport:
    """Whether ``x_adv`` is inside the ball around ``x`` and inside the box, decided in exact arithmetic.

    A floating-point subtraction would round the excess of one unit in the last place away, or make one up.
    Where ``x_adv`` or ``x`` is NaN or infinite, the pixel is outside.

    Args:
        x_adv, x: (B, ...) floating tensors of the same shape.
        eps: radius >= 0, as an exact real number: the float64 that is given, not its rounding to x's dtype. A
            number or a (B,) tensor.
        norm: "Linf", "L2" or "L1".
        clip_min, clip_max: the box, exact real numbers, too.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """
    for name, tensor in (("x_adv", x_adv), ("x", x)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} is {found}: expected a floating tensor")
    if x_adv.shape != x.shape:
        raise ValueError(f"x_adv has shape {tuple(x_adv.shape)}: expected x's, {tuple(x.shape)}")
    if x.dim() < 1:
        raise ValueError("x has no dimensions: expected (B, ...)")
    if norm not in ("Linf", "L2", "L1"):
        raise ValueError(f"norm={norm!r}: expected 'Linf', 'L2' or 'L1'")
    if not clip_min <= clip_max:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected clip_min <= clip_max")
    radius = torch.as_tensor(eps, dtype=torch.float64).detach().cpu()
    if radius.shape not in ((), x.shape[:1]):
        raise ValueError(f"eps has shape {tuple(radius.shape)}: expected a number or one per sample, ({x.shape[0]},)")
    if not (radius >= 0).all():
        raise ValueError(f"eps={eps}: expected numbers >= 0")
    radius = radius.expand(x.shape[0])
    x_adv, x = (t.detach().to("cpu", torch.float64).unsqueeze(1).flatten(1) for t in (x_adv, x))

    valid = x_adv.isfinite() & x.isfinite()
    outside = ~valid | (x_adv > clip_max) | (x_adv < clip_min)
    excess = torch.maximum(x_adv - clip_max, clip_min - x_adv)
    if norm == "Linf":
        far, distance_excess = _far(x_adv, x, radius.unsqueeze(1))
        outside |= far
        excess = torch.maximum(excess, distance_excess)
    found = excess.where(valid, math.inf)[outside].tolist()
    violations = len(found)
    if norm != "Linf":
        for sample_adv, sample, bound in zip(x_adv, x, radius.tolist(), strict=True):
            sample_excess = _norm_excess(sample_adv, sample, bound, norm)
            if sample_excess > 0:
                violations += 1
                found.append(sample_excess)
    return FeasibilityReport(violations, max(found, default=0.0))


def _far(x_adv: Tensor, x: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
    """Per pixel whether the distance exceeds ``bound``, and by how much."""
    difference = x_adv - x
    # Knuth's TwoSum: difference + error is exact.
    x_adv_part = difference + x
    error = (x_adv - x_adv_part) - (x - (x_adv_part - difference))
    size, rest = difference.abs(), error * difference.sign()
    # size is the exact distance size + rest, rounded, so it decides alone unless it equals the bound.
    return (size > bound) | ((size == bound) & (rest > 0)), (size - bound) + rest


def _norm_excess(x_adv: Tensor, x: Tensor, eps: float, norm: str) -> float:
    """By how much the distance of one sample exceeds ``eps``; <= 0 if it does not."""
    power = 2 if norm == "L2" else 1
    difference = x_adv - x
    # Scaled, because squares would overflow or underflow.
    scale = difference.abs().max().item() if difference.numel() else 0.0
    approximate = scale * torch.linalg.vector_norm(difference / scale, power).item() if scale else 0.0
    if not math.isfinite(approximate):
        return math.inf
    # A float64 norm of 150,528 numbers is right to 2e-11: exact arithmetic only where that can't tell.
    if math.isinf(eps) or abs(approximate - eps) > 1e-9 * max(eps, approximate):
        return approximate - eps
    distance = sum(abs(_integer(a) - _integer(b)) ** power for a, b in zip(x_adv.tolist(), x.tolist(), strict=True))
    if distance <= _integer(eps) ** power:
        return 0.0
    return max(approximate - eps, math.ulp(eps))


def _integer(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator * (_SCALE // denominator)
