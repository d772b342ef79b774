"""Steps of projected gradient descent."""

import functools
import math
from numbers import Real

import torch
from torch import Tensor

from .._extension import devices
from .overlap import overlaps, overlaps_itself

_DEVICES = devices()
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def pgd_step_(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    norm: str = "Linf",
    clip_min: float = 0.0,
    clip_max: float = 1.0,
) -> Tensor:
    """One step of projected gradient ascent (Madry et al., arXiv 1706.06083), in place and in one kernel.

    x_adv <- clip(x_adv + alpha * sign(grad)) to the ball of radius ``eps`` around ``x`` and to the box.

    The result is inside both in exact arithmetic, not just up to rounding: the ball's bounds are rounded
    towards x, ``eps`` and ``clip_max`` down and ``clip_min`` up to x's dtype. A NaN gradient makes no step,
    as a zero one; an infinite one steps like any other. NaN in ``x_adv`` stays NaN. Where ``x`` is
    outside the box, the box wins.

    Args:
        x_adv: (B, ...) float32 or float64, changed in place. Any strides, no overlapping memory.
        grad: gradient of the loss at ``x_adv``; same shape and device, any floating dtype.
        x: the clean input; same shape, dtype and device as ``x_adv``.
        eps: radius >= 0, in the units of ``x``; a number or a (B,) tensor.
        alpha: step size; negative to descend; a number or a (B,) tensor.
        norm: "Linf".
        clip_min, clip_max: the box.

    Returns:
        ``x_adv``.

    Raises:
        TypeError, ValueError: an argument is not as above; ``x_adv`` is unchanged. Values of CUDA tensors
            are not looked at, since that would wait for the device.
    """
    _check(x_adv, grad, x, norm, clip_min, clip_max)
    eps = _size("eps", eps, x_adv)
    alpha = _size("alpha", alpha, x_adv)
    lowest, highest = _round_up(float(clip_min), x.dtype), _round_down(float(clip_max), x.dtype)
    if lowest > highest:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected a number of {x.dtype} between them")
    if x_adv.device.type in _DEVICES and type(x_adv) is Tensor and not x_adv.is_neg():
        if not isinstance(eps, Tensor) and not isinstance(alpha, Tensor):
            torch.ops.sat_kernels.pgd_step_linf_.default(x_adv, grad, x, eps, alpha, lowest, highest)
        else:
            eps, alpha = (v if isinstance(v, Tensor) else x_adv.new_full((x_adv.shape[0],), v) for v in (eps, alpha))
            torch.ops.sat_kernels.pgd_step_linf_per_sample_.default(x_adv, grad, x, eps, alpha, lowest, highest)
        torch.autograd.graph.increment_version(x_adv)
        return x_adv
    eps, alpha = (_per_sample(v, x_adv) for v in (eps, alpha))
    with torch.no_grad():
        return x_adv.copy_(_step_linf(x_adv, grad, x, eps, alpha, lowest, highest))


def _check(x_adv, grad, x, norm, clip_min, clip_max) -> None:
    for name, tensor in (("x_adv", x_adv), ("grad", grad), ("x", x)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}: expected a tensor")
        if tensor.layout is not torch.strided or tensor.is_nested:
            raise TypeError(
                f"{name} is a {'nested' if tensor.is_nested else tensor.layout} tensor: expected a dense one"
            )
    if x_adv.dtype not in _FLOATS[:2]:
        raise TypeError(f"x_adv is {x_adv.dtype}: expected torch.float32 or torch.float64")
    if x.dtype != x_adv.dtype:
        raise TypeError(f"x is {x.dtype}: expected x_adv's dtype, {x_adv.dtype}")
    if grad.dtype not in _FLOATS:
        raise TypeError(f"grad is {grad.dtype}: expected one of {', '.join(map(str, _FLOATS))}")
    for name, tensor in (("grad", grad), ("x", x)):
        if tensor.shape != x_adv.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected x_adv's, {tuple(x_adv.shape)}")
        if tensor.device != x_adv.device:
            raise ValueError(f"{name} is on {tensor.device}: expected x_adv's device, {x_adv.device}")
    if x_adv.is_meta:
        raise TypeError("x_adv is a meta tensor: expected one with data")
    if norm != "Linf":
        raise ValueError(f"norm={norm!r}: expected 'Linf'")
    if not clip_min <= clip_max:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected clip_min <= clip_max")
    if x_adv.requires_grad and torch.is_grad_enabled():
        raise ValueError("x_adv requires grad and the step has no derivative: expected x_adv.detach() or no_grad()")
    if overlaps_itself(x_adv):
        raise ValueError(f"x_adv overlaps itself (strides {x_adv.stride()}): expected memory of its own per element")
    for name, tensor in (("grad", grad), ("x", x)):
        if overlaps(x_adv, tensor):
            raise ValueError(f"{name} shares memory with x_adv, which is written: expected another tensor")


def _size(name: str, value, x_adv: Tensor):
    """``value`` as a number or (B,) tensor in x_adv's dtype; radii are rounded down to it."""
    if not isinstance(value, Tensor):
        if not isinstance(value, Real):
            raise TypeError(f"{name} is a {type(value).__name__}: expected a number or a tensor of one per sample")
        value = float(value)
        if math.isnan(value) or (name == "eps" and value < 0):
            raise ValueError(f"{name}={value}: expected a number{' >= 0' if name == 'eps' else ''}")
        return _round_down(value, x_adv.dtype) if name == "eps" else value
    batch = x_adv.shape[:1]
    if value.shape != batch or x_adv.dim() == 0:
        raise ValueError(f"{name} has shape {tuple(value.shape)}: expected a number or one per sample, {tuple(batch)}")
    if not value.is_floating_point():
        raise TypeError(f"{name} is {value.dtype}: expected a floating tensor")
    if value.device != x_adv.device:
        raise ValueError(f"{name} is on {value.device}: expected x_adv's device, {x_adv.device}")
    if value.device.type == "cpu" and (value.isnan().any() or (name == "eps" and (value < 0).any())):
        raise ValueError(f"{name} holds {value.min().item()}: expected numbers{' >= 0' if name == 'eps' else ''}")
    rounded = value.to(x_adv.dtype)
    if name == "eps" and rounded.dtype != value.dtype:
        down = torch.nextafter(rounded, torch.zeros_like(rounded))
        rounded = torch.where(rounded.to(torch.float64) > value.to(torch.float64), down, rounded)
    return rounded.contiguous()


def _per_sample(value, x_adv: Tensor):
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=x_adv.dtype, device=x_adv.device)
    return value.reshape(-1, *(1,) * (x_adv.dim() - 1))


@functools.lru_cache
def _round_down(value: float, dtype: torch.dtype) -> float:
    """The largest number of ``dtype`` that is <= value."""
    rounded = torch.tensor(value, dtype=dtype, device="cpu")
    if rounded.item() > value:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype, device="cpu"))
    return rounded.item()


@functools.lru_cache
def _round_up(value: float, dtype: torch.dtype) -> float:
    return -_round_down(-value, dtype)


def _step_linf(x_adv, grad, x, eps, alpha, lowest, highest) -> Tensor:
    """The step in plain PyTorch; ``eps`` and ``alpha`` broadcast against ``x``."""
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    step = torch.where(grad > 0, alpha, torch.where(grad < 0, -alpha, zero))
    moved, low, high = x_adv + step, _rounded_sum(x, -eps, math.inf), _rounded_sum(x, eps, -math.inf)
    moved = torch.where(moved > high, high, torch.where(moved < low, low, moved))
    return moved.clamp(lowest, highest)


def _rounded_sum(a: Tensor, b: Tensor, towards: float) -> Tensor:
    """a + b, rounded to the side of ``towards`` (+-inf)."""
    total = a + b
    # Knuth's TwoSum: the rounding error of ``total``, exact.
    a_part = total - b
    error = (a - a_part) + (b - (total - a_part))
    bound = torch.full((), towards, dtype=total.dtype, device=total.device)
    wrong_side = error > 0 if towards > 0 else error < 0
    return torch.where(wrong_side, torch.nextafter(total, bound), total)
