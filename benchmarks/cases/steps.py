"""Steps in other norms, momentum, APGD, projections, starts and state, float32, each against its eager form.

"eager" is the shortest form in place. "AutoAttack's algorithm": that of arXiv 2103.01208 in torch's operators, as
AutoAttack has it: breakpoints sorted, slopes cumulated, a bisection.
"""

import math
from collections.abc import Iterator

import torch
from measuring.case import OURS, Case, Side

from sat_kernels import ops

from .setting import Setting, images, norms
from .state import update

SHAPES = ((128, 3, 32, 32), (16, 3, 224, 224), (64, 3, 32, 32))


def suite(setting: Setting) -> Iterator[Case]:
    shapes = setting.pick(((4, 3, 8, 8),), quick=SHAPES[:1], default=SHAPES[:2], full=SHAPES)
    for shape in shapes:
        yield step(setting, shape, "L2")
        yield step(setting, shape, "L1")
        yield projection(setting, shape)
    for shape in shapes[:1]:
        yield momentum(setting, shape)
        yield apgd(setting, shape)
        yield start(setting, shape, "Linf")
        yield start(setting, shape, "L2")
        yield update(setting, shape, 0)
        yield update(setting, shape, 10)


def radii(shape, norm: str) -> tuple[float, float]:
    """eps and alpha: those for CIFAR, and as much per pixel for larger images."""
    pixels = math.prod(shape[1:]) / 3072
    eps = {"Linf": 8 / 255, "L2": 0.5 * pixels**0.5, "L1": 12.0 * pixels}[norm]
    return eps, eps / {"Linf": 4, "L2": 5, "L1": 12}[norm]


def case_of(suite, name, kind, shape, reads, writes, buffers, sides, **more) -> Case:
    """``reads`` and ``writes``: of tensors of ``shape``, at least; steps write what they have read."""
    more["in_place"] = kind == "step" and name != "project_ L1"
    case = Case(suite, name, kind, "float32", tuple(shape), buffers, sides, **more)
    return case.having(moved=(reads + writes) * case.size)


def step(setting: Setting, shape, norm: str, suite: str = "steps") -> Case:
    eps, alpha = radii(shape, norm)
    sides = {OURS: Side(lambda x_adv, g, x: lambda: ops.pgd_step_(x_adv, g, x, eps=eps, alpha=alpha, norm=norm))}

    def eager_l2(x_adv, g, x):
        delta = torch.empty_like(x)

        def call():
            x_adv.addcmul_(g, alpha / (norms(g) + 1e-10))
            torch.sub(x_adv, x, out=delta)
            return torch.addcmul(x, delta, (eps / norms(delta)).clamp_(max=1), out=x_adv).clamp_(0, 1)

        return call

    if norm == "L2":
        sides["eager"] = Side(eager_l2)
    return case_of(suite, f"pgd_step_ {norm}", "step", shape, 3, 1, images(setting, shape), sides)


def projection(setting: Setting, shape) -> Case:
    eps = radii(shape, "L1")[0]

    def buffers(i):
        torch.manual_seed(i)
        x = torch.rand(shape, device=setting.device)
        return x + torch.randn_like(x) * 0.1, x

    def ours(moved, x):
        x_adv = torch.empty_like(x)
        return lambda: ops.project_(x_adv.copy_(moved), x, eps=eps, norm="L1")

    sides = {
        OURS: Side(ours),
        "AutoAttack's algorithm": Side(lambda moved, x: lambda: x + sorted_projection(x, moved, eps), graph=False),
    }
    return case_of("steps", "project_ L1", "step", shape, 2, 1, buffers, sides)


def sorted_projection(x, moved, eps: float):
    """moved - x, projected to the L1 ball and to what the box [0, 1] leaves of it."""
    batch, rows = x.shape[0], torch.arange(x.shape[0], device=x.device)
    move = (moved - x).flatten(1)
    size = move.abs()
    room = torch.minimum(torch.where(move < 0, x.flatten(1), 1 - x.flatten(1)).clamp(min=0), size)
    # What remains for a reduction is room up to size - room, and falls to 0 at size.
    points, order = torch.sort(torch.cat((size - room, size), 1), 1)
    slopes = torch.cat((-torch.ones_like(size), torch.ones_like(size)), 1).gather(1, order).cumsum(1)
    whole = room.sum(1, keepdim=True)
    falls = ((points[:, 1:] - points[:, :-1]) * slopes[:, :-1]).cumsum(1)
    remains = torch.cat((whole, whole + falls), 1)
    low, high = x.new_zeros(batch), x.new_full((batch,), 2.0 * size.shape[1] - 1)
    for _ in range(math.ceil(math.log2(2 * size.shape[1]))):
        middle = torch.floor((low + high) / 2)
        too_much = remains[rows, middle.long()] > eps
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    i = low.long()
    reduction = points[rows, i] + (eps - remains[rows, i]) / slopes[rows, i]
    reduction = torch.where(whole[:, 0] > eps, reduction, 0.0)
    return (torch.minimum((size - reduction[:, None]).clamp(min=0), room) * move.sign()).view_as(x)


def momentum(setting: Setting, shape, suite: str = "steps") -> Case:
    eps, alpha = radii(shape, "Linf")
    made = images(setting, shape)

    def buffers(i):
        x_adv, g, x = made(i)
        return x_adv, torch.zeros_like(x), g, x

    def ours(x_adv, momentum, g, x):
        return lambda: ops.momentum_step_(x_adv, momentum, g, x, eps=eps, alpha=alpha)

    def eager(x_adv, momentum, g, x):
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)

        def call():
            momentum.addcmul_(g, 1 / g.abs().mean((1, 2, 3), keepdim=True))
            x_adv.add_(momentum.sign(), alpha=alpha)
            return torch.clamp(x_adv, min=low, max=high, out=x_adv)

        return call

    sides = {OURS: Side(ours), "eager": Side(eager)}
    return case_of(suite, "momentum_step_", "step", shape, 4, 2, buffers, sides)


def apgd(setting: Setting, shape) -> Case:
    """A step size per sample."""
    eps = radii(shape, "Linf")[0]
    made = images(setting, shape)

    def buffers(i):
        x_adv, g, x = made(i)
        return x_adv, x.clone(), g, x, torch.full((len(x),), eps, device=setting.device)

    def ours(x_adv, x_prev, g, x, sizes):
        return lambda: ops.apgd_step_(x_adv, x_prev, g, x, eps=eps, step_size=sizes)

    def eager(x_adv, x_prev, g, x, sizes):
        """The ball and the box are one box, made beforehand: AutoAttack clamps to them one after the other, twice."""
        low, high, sizes = (x - eps).clamp(min=0), (x + eps).clamp(max=1), sizes.view(-1, 1, 1, 1)
        z, old = torch.empty_like(x), torch.empty_like(x)

        def call():
            old.copy_(x_adv)
            torch.addcmul(x_adv, g.sign(), sizes, out=z)
            torch.clamp(z, min=low, max=high, out=z)
            x_adv.mul_(0.5).add_(z, alpha=0.75).add_(x_prev, alpha=-0.25)
            x_prev.copy_(old)
            return torch.clamp(x_adv, min=low, max=high, out=x_adv)

        return call

    sides = {OURS: Side(ours), "eager": Side(eager)}
    return case_of("steps", "apgd_step_ Linf", "step", shape, 4, 2, buffers, sides)


def start(setting: Setting, shape, norm: str, suite: str = "steps") -> Case:
    eps = radii(shape, norm)[0]
    ids = torch.arange(shape[0], device=setting.device)
    init = "uniform" if norm == "Linf" else "radial"

    def ours(x_adv, g, x):
        return lambda: ops.random_start(x, eps=eps, seed=0, norm=norm, init=init, sample_ids=ids)

    def eager(x_adv, g, x):
        if norm == "Linf":
            return lambda: x_adv.uniform_(-eps, eps).add_(x).clamp_(0, 1)

        def call():
            x_adv.normal_()
            x_adv.mul_(eps * torch.rand(len(x), 1, 1, 1, device=x.device) / norms(x_adv))
            return x_adv.add_(x).clamp_(0, 1)

        return call

    # torch's generator in a graph needs registering: timed call by call.
    sides = {OURS: Side(ours), "torch's generator": Side(eager, graph=False, same=False)}
    return case_of(suite, f"random_start {norm}", "start", shape, 1, 1, images(setting, shape), sides)
