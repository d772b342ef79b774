"""The Linf step: its limit, and everybody's way to do it; out= or in place on every side.

``addcmul`` reads three tensors and writes one, as the fused step must: its time is the limit.
"""

from collections.abc import Iterator

import torch
from measuring.case import DTYPES, OURS, Case, Side

from sat_kernels.ops import pgd_step_

from .setting import ALPHA, EPS, Setting, compiled_side, images

# A batch for CIFAR, in cache, and one for ImageNet, in memory.
CIFAR, IMAGENET = (128, 3, 32, 32), (64, 3, 224, 224)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RIVALS = ("addcmul", "eager", "torchattacks", "compiled")


def suite(setting: Setting) -> Iterator[Case]:
    small, large = ((4, 3, 8, 8), (2, 3, 16, 16)) if setting.smoke else (CIFAR, IMAGENET)
    rivals = RIVALS if setting.at_least("default") else RIVALS[:3]
    yield step(setting, small, rivals=RIVALS[:3])
    yield step(setting, large, rivals=rivals, cold=True)
    if setting.at_least("default"):
        yield step(setting, large, rivals=RIVALS[:3], cold=True, gradient="bfloat16")
    for layout in ("contiguous", "channels_last")[: 2 if setting.at_least("default") else 1]:
        yield network_input(setting, large, layout)


def step(setting: Setting, shape, *, suite="steps", rivals=(), gradient: str = "float32", cold: bool = False) -> Case:
    """float32 images; gradients in any type. It reads x_adv, x and the gradient and writes x_adv."""
    dtype = DTYPES[gradient]
    made = images(setting, shape)

    def buffers(i):
        x_adv, g, x = made(i)
        return x_adv, g.to(dtype), x

    offered = {
        "addcmul": Side(lambda x_adv, g, x: lambda: torch.addcmul(x_adv, g, x, out=x_adv), same=False),
        "eager": Side(eager),
        "torchattacks": Side(published),
        "compiled": compiled_side(setting, _plain),
    }
    names = {"addcmul": "addcmul (the limit)", "torchattacks": "torchattacks' sequence", "compiled": "torch.compile"}
    sides = {OURS: Side(lambda x_adv, g, x: lambda: pgd_step_(x_adv, g, x, eps=EPS, alpha=ALPHA))}
    sides |= {names.get(rival, rival): offered[rival] for rival in rivals}
    if gradient != "float32":
        sides.pop(names["addcmul"], None)  # it takes one type
    types = "float32" if gradient == "float32" else f"float32, gradient {gradient}"
    case = Case(suite, "pgd_step_ Linf", "step", types, tuple(shape), buffers, sides, in_place=True, cold=cold)
    return case.having(moved=case.size // 4 * (12 + dtype.itemsize))


def eager(x_adv, g, x):
    """The shortest chain in place; bounds are made beforehand, which no attack does for free."""
    moved, low, high = torch.empty_like(x), (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)

    def call():
        torch.sign(g, out=moved) if g.dtype == x.dtype else moved.copy_(g).sign_()
        x_adv.add_(moved, alpha=ALPHA)
        return torch.clamp(x_adv, min=low, max=high, out=x_adv)

    return call


def published(x_adv, g, x):
    """The sequence of torchattacks' PGD."""

    def call():
        nonlocal x_adv
        moved = x_adv.detach() + ALPHA * g.sign().to(x.dtype)  # in 16 bits 2/255 would be another number
        delta = torch.clamp(moved - x, min=-EPS, max=EPS)
        x_adv = torch.clamp(x + delta, min=0, max=1).detach()
        return x_adv

    return call


def _plain(x_adv, g, x):
    moved = x_adv + ALPHA * g.sign().to(x.dtype)
    return x_adv.copy_(torch.minimum(torch.maximum(moved, (x - EPS).clamp(min=0)), (x + EPS).clamp(max=1)))


def network_input(setting: Setting, shape, layout: str) -> Case:
    """The step and (x_adv - mean) / std in bfloat16."""
    mean, std = (torch.tensor(v, device=setting.device) for v in (MEAN, STD))
    per_channel = [v.view(3, 1, 1) for v in (mean, std)]

    def normalising(x_adv, x):
        out, buffer = torch.empty_like(x, dtype=torch.bfloat16), torch.empty_like(x)
        return lambda: out.copy_(torch.sub(x_adv, per_channel[0], out=buffer).div_(per_channel[1]))

    def in_two(step):
        def make(x_adv, g, x):
            move, normalise = step(x_adv, g, x), normalising(x_adv, x)

            def call():
                move()
                return normalise()

            return call

        return Side(make)

    def fused(x_adv, g, x):
        out = torch.empty_like(x, dtype=torch.bfloat16)

        def call():
            pgd_step_(x_adv, g, x, eps=EPS, alpha=ALPHA, out=out, mean=mean, std=std)
            return out

        return call

    def ours(x_adv, g, x):
        return lambda: pgd_step_(x_adv, g, x, eps=EPS, alpha=ALPHA)

    sides = {OURS: Side(fused), "sat_kernels step, then eager": in_two(ours), "eager": in_two(eager)}
    made = images(setting, shape, getattr(torch, layout if layout == "channels_last" else "contiguous_format"))
    case = Case("steps", "pgd_step_ Linf and network input", "step", "float32", tuple(shape), made, sides,
                layout=layout, in_place=True, cold=True, tolerance=2e-2)  # fmt: skip
    return case.having(moved=case.size // 4 * (16 + 2))
