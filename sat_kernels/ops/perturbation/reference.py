"""The Linf steps in plain PyTorch. Numbers per sample and channel broadcast against ``x``; they are in its dtype."""

import math

import torch
from torch import Tensor


def pgd_step(x_adv, grad, x, eps, alpha, lowest, highest, mask) -> Tensor:
    if grad is None:
        return project(x_adv, x, eps, lowest, highest)
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    step = torch.where(grad > 0, alpha, torch.where(grad < 0, -alpha, zero))
    if mask is not None:
        step = torch.where(mask, step, zero)
    return project(x_adv + step, x, eps, lowest, highest)


def project(moved, x, eps, lowest, highest) -> Tensor:
    low, high = rounded_sum(x, -eps, math.inf), rounded_sum(x, eps, -math.inf)
    moved = torch.where(moved > high, high, torch.where(moved < low, low, moved))
    return moved.clamp(lowest, highest)


def next_momentum(momentum, grad, decay: float) -> Tensor:
    """decay * momentum + grad / mean |grad|; of a gradient with infinite elements, those are +-1 and others 0."""
    grad = grad.to(torch.float64).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
    dims = tuple(range(1, grad.dim()))
    infinite = grad.isinf()
    any_infinite = infinite.any() if not dims else infinite.flatten(1).any(1).view(-1, *(1,) * len(dims))
    grad = torch.where(any_infinite, infinite * grad.sign(), grad)
    # Scaled by the largest, so that no sum overflows, and no mean underflows.
    largest = grad.abs().amax(dims, keepdim=True) if dims else grad.abs()
    grad = grad / torch.where(largest > 0, largest, 1.0)
    mean = grad.abs().mean(dims, keepdim=True) if dims else grad.abs()
    share = grad / torch.where(mean > 0, mean, 1.0)
    return (decay * momentum.to(torch.float64) + share).to(momentum.dtype)


def apgd_step(x_adv, x_prev, grad, x, eps, step_size, first: bool, lowest, highest) -> Tensor:
    led = pgd_step(x_adv, grad, x, eps, step_size, lowest, highest, None)
    if first:
        return led
    moved = x_adv + 0.75 * (led - x_adv) + 0.25 * (x_adv - x_prev)
    return project(moved, x, eps, lowest, highest)


def rounded_sum(a: Tensor, b: Tensor, towards: float) -> Tensor:
    """a + b, rounded to the side of ``towards`` (+-inf)."""
    total = a + b
    # Knuth's TwoSum: the rounding error of ``total``, exact.
    a_part = total - b
    error = (a - a_part) + (b - (total - a_part))
    bound = torch.full((), towards, dtype=total.dtype, device=total.device)
    wrong_side = error > 0 if towards > 0 else error < 0
    return torch.where(wrong_side, torch.nextafter(total, bound), total)
