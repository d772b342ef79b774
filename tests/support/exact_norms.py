"""The L2 and L1 steps by their definitions, one sample in Python's floats; sums are exact (math.fsum)."""

import math


def l2_direction(grad: list[float]) -> list[float]:
    """grad over its norm; of infinite elements, the signs."""
    if any(map(math.isinf, grad)):
        grad = [math.copysign(1.0, g) if math.isinf(g) else 0.0 for g in grad]
    grad = [0.0 if math.isnan(g) else g for g in grad]
    norm = math.hypot(*grad)
    top = max(map(abs, grad), default=0.0)
    if norm < 1e-290 or math.isinf(norm):  # scaled, so that quotients keep their bits
        grad = [g / top for g in grad] if top > 0 else grad
        norm = math.hypot(*grad)
    return [g / norm if norm > 0 else 0.0 for g in grad]


def l1_direction(grad: list[float], x_adv: list[float], sign: int, k: int, box: tuple | None) -> list[float]:
    """Signs of the k largest elements over their number; with a box, of those that may move in it."""
    sizes = []
    for g, a in zip(grad, x_adv, strict=True):
        up = sign * g > 0
        stuck = box is not None and not (a < box[1] if up else a > box[0])
        sizes.append(0.0 if math.isnan(g) or stuck else abs(g))
    ranked = sorted((s for s in sizes if s > 0), reverse=True)
    if not ranked:
        return [0.0] * len(grad)
    least = math.inf if math.isinf(ranked[0]) else ranked[min(k, len(ranked)) - 1]
    count = sum(s >= least for s in sizes)
    return [math.copysign(1 / count, g) if s >= least else 0.0 for s, g in zip(sizes, grad, strict=True)]


def to_l2_ball(move: list[float], eps: float) -> list[float]:
    norm = math.hypot(*move)
    return move if norm <= eps else [m / norm * eps for m in move]


def to_l1_ball(move: list[float], x: list[float], eps: float, box: tuple) -> list[float]:
    """The nearest point of ball and box. Between two breakpoints, sorted, the sum is a line."""
    rooms = [max(0.0, c - box[0] if m < 0 else box[1] - c) for m, c in zip(move, x, strict=True)]

    def remains(reduction):
        return [min(max(abs(m) - reduction, 0.0), room) for m, room in zip(move, rooms, strict=True)]

    reduction = 0.0
    if math.fsum(remains(0.0)) > eps:
        sizes = [abs(m) for m in move]
        points = sorted({0.0, *sizes, *(max(s - room, 0.0) for s, room in zip(sizes, rooms, strict=True))})
        # The first that is enough: bisection.
        low, high = 0, len(points) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if math.fsum(remains(points[middle])) <= eps else (middle, high)
        above, below = math.fsum(remains(points[low])), math.fsum(remains(points[high]))
        reduction = points[low] + (above - eps) / (above - below) * (points[high] - points[low])
    return [math.copysign(left, m) for left, m in zip(remains(reduction), move, strict=True)]
