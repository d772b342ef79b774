"""The L2 and L1 steps in plain PyTorch, in float64: for what has no kernels.

Feasible as the kernels are: moves are cut to a radius that is smaller by more than float64's rounding errors, rounded
towards 0 to x's dtype, and added to x towards x. No shape depends on values, so nothing waits for the device.
"""

import math

import torch
from torch import Tensor

from .reference import rounded_sum

# Beyond this, moves count as this, as in the kernels.
_FAR = {torch.float32: 2.0**100, torch.float64: 2.0**900}
_LEAST = 5e-324


def pgd_step_l2(x_adv, grad, x, eps, alpha, lowest, highest, mask) -> Tensor:
    if x.numel() == 0:
        return x_adv
    before = _difference(x_adv, x)
    move = before if grad is None else before + _limited(alpha, x) * _unit(_gradient(grad, mask))
    return _to_l2_ball(x_adv, x, before, move, eps, lowest, highest)


def apgd_step_l2(x_adv, x_prev, grad, x, eps, step_size, first: bool, lowest, highest) -> Tensor:
    led = pgd_step_l2(x_adv, grad, x, eps, step_size, lowest, highest, None)
    if first or x.numel() == 0:
        return led
    # As x_adv + 0.75 (led - x_adv) + 0.25 (x_adv - x_prev).
    moved = _rows(x_adv) + 0.75 * (_rows(led) - _rows(x_adv)) + 0.25 * (_rows(x_adv) - _rows(x_prev))
    far = _FAR[x.dtype]
    move = (moved - _rows(x)).clamp(-far, far)
    return _to_l2_ball(x_adv, x, _difference(x_adv, x), move, eps, lowest, highest)


def pgd_step_l1(x_adv, grad, x, eps, alpha, lowest, highest, mask, top_k) -> Tensor:
    return _l1_step(x_adv, grad, x, eps, alpha, lowest, highest, mask, top_k, True)


def apgd_step_l1(x_adv, grad, x, eps, step_size, top_k, lowest, highest) -> Tensor:
    return _l1_step(x_adv, grad, x, eps, step_size, lowest, highest, None, top_k, False)


def _l1_step(x_adv, grad, x, eps, alpha, lowest, highest, mask, top_k, skip_faces: bool) -> Tensor:
    if x.numel() == 0:
        return x_adv
    move = before = _difference(x_adv, x)
    if grad is not None:
        alpha, gradient = _limited(alpha, x), _gradient(grad, mask)
        sizes = gradient.abs()
        if skip_faces:
            found, upwards = _rows(x_adv), gradient * alpha.sign() > 0
            sizes = sizes * torch.where(upwards, found < highest, found > lowest)
        chosen = _largest(sizes, top_k)
        move = before + chosen * gradient.sign() * (alpha / chosen.sum(1, keepdim=True).clamp(min=1))
    return _to_l1_ball(x_adv, x, before, move, eps, lowest, highest)


def _largest(sizes: Tensor, k: Tensor) -> Tensor:
    """Where the k largest of each row are, all that equal the least of them included, none that is 0."""
    rank = (k - 1).clamp(0, sizes.shape[1] - 1).expand(sizes.shape[0], 1)
    least = sizes.sort(1, descending=True).values.gather(1, rank)
    return (sizes >= least) & (sizes > 0)


def _to_l2_ball(x_adv, x, before, move, eps, lowest, highest) -> Tensor:
    known = move.nan_to_num(nan=0.0)
    top = known.abs().amax(1, keepdim=True)
    top = torch.where(top > 0, top, 1.0)
    unit = move.abs() / top  # so that no square over- or underflows
    norm = (known / top).square().sum(1, keepdim=True).sqrt()
    radius = _inner(eps, x)
    inside = norm <= radius / top
    # Less by the least number, for products that underflow.
    size = torch.where(inside, move.abs(), (unit * torch.where(norm > 0, radius / norm, 0.0) - _LEAST).clamp(min=0))
    result = _moved_by(_rows(x, x.dtype), size, move < 0)
    return _ended(torch.where(inside & (move == before), _rows(x_adv, x.dtype), result), x_adv, before, lowest, highest)


def _to_l1_ball(x_adv, x, before, move, eps, lowest, highest) -> Tensor:
    size, clean = move.abs().nan_to_num(nan=0.0), _rows(x)
    down = move < 0
    room = torch.where(down, clean - lowest, highest - clean).nan_to_num(nan=0.0, posinf=math.inf).clamp(min=0)
    radius = _inner(eps, x)

    def remains(reduction):
        return torch.minimum((size - reduction).clamp(min=0), room)

    # The least number to reduce all by, by its bits, which are in the order of non-negative numbers.
    high = size.amax(1, keepdim=True).view(torch.int64)
    low = torch.full_like(high, -1)
    for _ in range(63):
        middle = low + (high - low + 1) // 2
        fits = remains(middle.view(torch.float64)).sum(1, keepdim=True) <= radius
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    left = remains(high.view(torch.float64))
    result = _moved_by(_rows(x, x.dtype), left, down)
    face = torch.where(down, x.new_full((), lowest), x.new_full((), highest))
    result = torch.where((left >= room) & (left > 0), face, result)
    stays = (high == 0) & (move == before)
    return _ended(torch.where(stays, _rows(x_adv, x.dtype), result), x_adv, before, lowest, highest)


def _ended(result: Tensor, x_adv: Tensor, before: Tensor, lowest, highest) -> Tensor:
    """In the box; NaN where x_adv is."""
    result = torch.where(before.isnan(), x_adv.reshape(before.shape), result)
    return result.clamp(lowest, highest).view(x_adv.shape)


def _rows(t: Tensor, dtype=torch.float64) -> Tensor:
    return t.to(dtype).reshape(t.shape[0], -1)


def _difference(x_adv: Tensor, x: Tensor) -> Tensor:
    far = _FAR[x.dtype]
    return (_rows(x_adv) - _rows(x)).clamp(-far, far)


def _limited(alpha: Tensor, x: Tensor) -> Tensor:
    """One for each row."""
    far = _FAR[x.dtype]
    return alpha.to(torch.float64).clamp(-far, far).reshape(-1, 1)


def _inner(eps: Tensor, x: Tensor) -> Tensor:
    """Less than eps by what sums and products of a row may be wrong by."""
    return eps.to(torch.float64).reshape(-1, 1) * (1 - (x[0].numel() + 32) * 2.0**-52)


def _gradient(grad: Tensor, mask: Tensor | None) -> Tensor:
    """NaN and what is masked as 0; where some are infinite, their signs alone."""
    rows = _rows(grad) if mask is None else _rows(grad.where(mask, 0))
    infinite = rows.isinf()
    rows = torch.where(rows.isnan(), 0.0, rows)
    return torch.where(infinite.any(1, keepdim=True), torch.where(infinite, rows.sign(), 0.0), rows)


def _unit(rows: Tensor) -> Tensor:
    top = rows.abs().amax(1, keepdim=True)
    rows = rows / torch.where(top > 0, top, 1.0)
    norm = rows.square().sum(1, keepdim=True).sqrt()
    return rows / torch.where(norm > 0, norm, 1.0)


def _moved_by(x: Tensor, size: Tensor, down: Tensor) -> Tensor:
    """x + or - size, which is float64: rounded towards 0, and the sum towards x."""
    rounded = size.to(x.dtype)
    rounded = torch.where(
        rounded.to(torch.float64) > size, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded
    )
    return torch.where(down, rounded_sum(x, -rounded, math.inf), rounded_sum(x, rounded, -math.inf))
