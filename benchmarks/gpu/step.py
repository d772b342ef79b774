"""The Linf step's sides: its bound, and everybody's way to do it."""

from collections.abc import Iterable, Sequence

import torch

from sat_kernels.ops import pgd_step_

from .measure import COPY, Case, Side
from .sides import DTYPES, MIB, elements_of

EPS, ALPHA = 8 / 255, 2 / 255


def step_cases(
    suite: str, device: torch.device, backend: str, *, sizes: Sequence[float], rivals: bool, compiler: str = "inductor"
) -> Iterable[Case]:
    """float32 images; gradients in each type. It reads x_adv, x and the gradient and writes x_adv."""
    for mib in sizes:
        for grad in ("float32", "bfloat16"):
            yield _case(suite, device, backend, elements_of(mib, torch.float32), mib, grad, rivals, compiler)
    if rivals and max(sizes) > 1:  # a batch of ImageNet
        size = 64 * 3 * 224 * 224
        yield _case(f"{suite} 64x3x224x224", device, backend, size, size * 4 / MIB, "float32", rivals, compiler)


def _case(suite, device, backend, size, mib, grad_dtype, rivals, compiler) -> Case:
    grad_type = DTYPES[grad_dtype]

    def buffers(i):
        torch.manual_seed(i)
        x = torch.rand(size, device=device)
        x_adv = (x + 0.02).clamp(max=1)
        return x_adv, torch.randn(x.shape, device=device, dtype=grad_type), x

    sides = {backend: Side(lambda x_adv, g, x: lambda: pgd_step_(x_adv, g, x, eps=EPS, alpha=ALPHA))}
    if rivals:
        sides |= {
            "addcmul": Side(lambda x_adv, g, x: lambda: torch.addcmul(x_adv, g, x, out=x_adv)),
            "sign, add, clamp": Side(_eager),
            "torchattacks": Side(_published),
            "inductor": _compiled(compiler),
        }
    if grad_dtype != "float32":
        sides.pop("addcmul", None)  # it takes one type
    sides[COPY] = Side(lambda x_adv, g, x: lambda: x.clone())
    facts = {"moved_by": {COPY: 2 * size * 4}}
    moved = size * (12 + grad_type.itemsize)
    types = f"float32, grad {grad_dtype}"
    return Case(suite, "pgd_step_linf", "step", types, mib, moved, buffers, sides, backend, facts)


def _eager(x_adv, g, x):
    """The shortest chain in place; bounds are made beforehand, which no attack does for free."""
    moved, low, high = torch.empty_like(x), (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)

    def call():
        torch.sign(g, out=moved) if g.dtype == x.dtype else moved.copy_(g).sign_()
        x_adv.add_(moved, alpha=ALPHA)
        torch.clamp(x_adv, min=low, max=high, out=x_adv)

    return call


def _published(x_adv, g, x):
    """The sequence of torchattacks' PGD."""

    def call():
        moved = x_adv.detach() + ALPHA * g.sign()
        delta = torch.clamp(moved - x, min=-EPS, max=EPS)
        return torch.clamp(x + delta, min=0, max=1).detach()

    return call


def _compiled(backend: str) -> Side:
    compiled = []

    def step(x_adv, g, x):
        moved = x_adv + ALPHA * g.sign()
        x_adv.copy_(torch.minimum(torch.maximum(moved, (x - EPS).clamp(min=0)), (x + EPS).clamp(max=1)))

    def make(*buffers):
        if not compiled:
            torch.compiler.reset()
            compiled.append(torch.compile(step, fullgraph=True, dynamic=False, backend=backend))
        return lambda: compiled[0](*buffers)

    return Side(make)
