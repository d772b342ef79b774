"""APGD as papers and AutoAttack's constants say it, one sample at a time, in float64 and without operators of ours."""

import torch


def cross_entropy(z, y):
    return z.logsumexp(0) - z[y]


def dlr(z, y):
    order = z.sort(descending=True).values
    wrong = torch.cat([z[:y], z[y + 1 :]]).max()
    return (wrong - z[y]) / (order[0] - order[2] + 1e-12)


def dlr_towards(target):
    def loss(z, y):
        order = z.sort(descending=True).values
        return (z[target] - z[y]) / (order[0] - (order[2] + order[3]) / 2 + 1e-12)

    return loss


def project(delta, x, eps, norm):
    """To ball and box; L1: the nearest point of both, by bisection of the multiplier. And whether rounding decides
    which coordinates are left at 0."""
    if norm == "Linf":
        return delta.clamp(-eps, eps).clamp(-x, 1 - x), False
    if norm == "L2":
        return (delta * min(1.0, eps / max(delta.norm().item(), 1e-300))).clamp(-x, 1 - x), False

    def shrunk(by):
        return (delta.sign() * (delta.abs() - by).clamp(min=0)).clamp(-x, 1 - x)

    low, high = 0.0, delta.abs().max().item()
    if shrunk(0.0).abs().sum() <= eps:
        return shrunk(0.0), False
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if shrunk(middle).abs().sum() > eps else (low, middle)
    return shrunk(high), bool(((delta.abs() - high).abs() < 1e-12).any())


def direction(grad, norm, moved):
    if norm == "Linf":
        return grad.sign()
    if norm == "L2":
        return grad / grad.norm()
    largest = grad.abs().flatten().topk(moved).values[-1]
    sparse = grad.sign() * (grad.abs() >= largest)
    return sparse / sparse.abs().sum()


def checkpoints(steps, norm):
    if norm == "L1":
        every = max(int(0.04 * steps), 1)
        return list(range(every, steps + 1, every))
    found, at, k = [], 0, max(int(0.22 * steps), 1)
    while (at := at + k) <= steps:
        found.append(at)
        k = max(k - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return found


def attack(model, x, y, start, norm, eps, steps, loss, rho=0.75):
    """One sample: what a run finds, the step sizes it made steps of, and how many of them no rounding could change."""

    def look(point):
        leaf = point.clone().requires_grad_()
        z = model(leaf[None])[0]
        value = loss(z, y)
        (grad,) = torch.autograd.grad(value, leaf)
        return value.item(), grad, z.argmax().item() != y

    d, at = x.numel(), checkpoints(steps, norm)
    point, before = start.clone(), start.clone()
    value, grad, fooled = look(point)
    values, best, best_value, best_grad = [0.0], point, value, grad
    fooling = point if fooled else None
    step, sizes = (eps if norm == "L1" else 2 * eps), []
    last, last_best, reduced = 0, value, True
    moved, sparsity, sure = d - int(0.8 * d), d, steps
    for i in range(1, steps + 1):
        sizes.append(step)
        delta, tie = project(point + step * direction(grad, norm, moved) - x, x, eps, norm)
        z = x + delta
        if norm != "L1" and i > 1:
            z = x + project(point + 0.75 * (z - point) + 0.25 * (point - before) - x, x, eps, norm)[0]
        before, point = point, z
        value, grad, fooled = look(point)
        values.append(value)
        fooling = point if fooled else fooling
        if tie or min(abs(value - best_value), abs(value - values[-2])) < 1e-9:
            sure = min(sure, i)
        if value > best_value:
            best, best_value, best_grad = point, value, grad
        if i not in at:
            continue
        if norm == "L1":
            nonzero = int(((best - x).abs() > 1e-12).sum())
            again = 20 * nonzero < 19 * sparsity
            step = eps if again else max(step / 1.5, eps / 10)
            moved, sparsity = max(1, -(-2 * nonzero // 3)), nonzero
        else:
            rises = sum(values[j] > values[j - 1] for j in range(last + 1, i + 1))
            again = rises <= rho * (i - last) or (not reduced and last_best >= best_value)
            step = step / 2 if again else step
            reduced, last_best, last = again, best_value, i
        if again:
            point, grad = best, best_grad
    return {"best": best, "loss": best_value, "fooling": fooling, "sizes": sizes, "sure": sure}
