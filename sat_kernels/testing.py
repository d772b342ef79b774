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
    A pixel that is NaN or infinite is outside.

    Args:
        x_adv, x: (B, ...) floating tensors of the same shape.
        eps: radius, as an exact real number: the float64 that is given, not its rounding to x's dtype. A
            number or a (B,) tensor.
        norm: "Linf", "L2" or "L1".
        clip_min, clip_max: the box.

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
    x_adv, x = (t.detach().to("cpu", torch.float64).flatten(1) if t.dim() > 1 else _column(t) for t in (x_adv, x))
    radius = torch.as_tensor(eps, dtype=torch.float64).detach().cpu()
    if radius.shape not in ((), x.shape[:1]):
        raise ValueError(f"eps has shape {tuple(radius.shape)}: expected a number or one per sample, ({x.shape[0]},)")
    radius = radius.expand(x.shape[0])

    invalid = ~x_adv.isfinite()
    box_excess = torch.maximum(x_adv - clip_max, clip_min - x_adv)
    outside = invalid | (x_adv > clip_max) | (x_adv < clip_min)
    worst = [math.inf] if invalid.any() else []
    worst += box_excess[outside & ~invalid].tolist()
    if norm == "Linf":
        difference, error = _exact_difference(x_adv, x)
        size, rest = difference.abs(), error * difference.sign()
        bound = radius.unsqueeze(1)
        # size + rest is the exact distance and |rest| is below half a unit of size: size alone decides,
        # except where it equals the bound.
        far = (size > bound) | ((size == bound) & (rest > 0)) | ~size.isfinite()
        worst += ((size - bound) + rest)[far & ~invalid].tolist()
        return FeasibilityReport(int((outside | far).sum()), max(worst, default=0.0))
    violations = int(outside.sum())
    for sample_adv, sample, bound in zip(x_adv, x, radius.tolist(), strict=True):
        excess = _norm_excess(sample_adv, sample, bound, norm)
        if excess > 0:
            violations += 1
            worst.append(excess)
    return FeasibilityReport(violations, max(worst, default=0.0))


def _column(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64).unsqueeze(1)


def _exact_difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a - b as a float64 and its rounding error, exactly (Knuth's TwoSum)."""
    difference = a - b
    a_part = difference + b
    return difference, (a - a_part) - (b - (a_part - difference))


def _norm_excess(x_adv: Tensor, x: Tensor, eps: float, norm: str) -> float:
    """By how much the distance of one sample exceeds ``eps``; <= 0 if it does not."""
    power = 2 if norm == "L2" else 1
    approximate = torch.linalg.vector_norm(x_adv - x, power).item()
    if not math.isfinite(approximate):
        return math.inf
    # A float64 norm of 150,528 numbers is right to 2e-11: exact arithmetic only where that can't tell.
    if abs(approximate - eps) > 1e-9 * max(eps, approximate):
        return approximate - eps
    distance = sum(abs(_integer(a) - _integer(b)) ** power for a, b in zip(x_adv.tolist(), x.tolist(), strict=True))
    if distance <= _integer(eps) ** power:
        return 0.0
    return max(approximate - eps, math.ulp(eps))


def _integer(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator * (_SCALE // denominator)
