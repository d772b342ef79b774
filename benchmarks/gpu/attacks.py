"""The operators of attacks: each against its eager form. Those of a step are captured and timed like activations."""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F

from sat_kernels import ops

from .measure import COPY, Case, Side
from .sides import DTYPES, MIB

# CIFAR and ImageNet batches, of which the GPU holds a sample in registers, and not.
IMAGES = ((128, 3, 32, 32), (1024, 3, 32, 32), (64, 3, 224, 224))
# Batch and classes: CIFAR, ImageNet, ImageNet-21k.
LOGITS = ((1024, 10), (1024, 1000), (256, 21_841))
RADII = {"L2": (0.5, 0.1), "L1": (12.0, 1.0), "Linf": (8 / 255, 2 / 255)}


def attack_cases(suite: str, device: torch.device, backend: str, *, smoke: bool = False) -> Iterable[Case]:
    for shape in ((4, 3, 8, 8),) if smoke else IMAGES:
        for norm in ("L2", "L1"):
            yield _step(suite, device, backend, shape, norm)
        yield _momentum(suite, device, backend, shape)
        yield _start(suite, device, backend, shape)
    for shape in ((4, 10),) if smoke else LOGITS:
        for loss in ("ce", "dlr"):
            yield _loss(suite, device, backend, shape, loss, "float32")
        yield _loss(suite, device, backend, shape, "ce", "bfloat16")


def _case(suite, name, kind, dtype, shape, reads, writes, buffers, sides, backend) -> Case:
    """``reads`` and ``writes``: of tensors of ``shape``, at least."""
    size = math.prod(shape) * DTYPES[dtype].itemsize
    title = f"{suite} {'x'.join(map(str, shape))}"
    sides[COPY] = Side(lambda *tensors: lambda: tensors[-1].clone())
    facts = {"moved_by": {COPY: 2 * size}}
    return Case(title, name, kind, dtype, size / MIB, (reads + writes) * size, buffers, sides, backend, facts)


def _images(device, shape):
    def buffers(i):
        torch.manual_seed(i)
        x = torch.rand(shape, device=device)
        return (x + 0.001).clamp(max=1), torch.randn_like(x), x

    return buffers


def _step(suite, device, backend, shape, norm) -> Case:
    eps, alpha = RADII[norm]
    sides = {backend: Side(lambda x_adv, g, x: lambda: ops.pgd_step_(x_adv, g, x, eps=eps, alpha=alpha, norm=norm))}
    if norm == "L2":

        def eager(x_adv, g, x):
            def call():
                x_adv.addcmul_(g, alpha / (_norm(g) + 1e-10))
                delta = x_adv - x
                torch.addcmul(x, delta, (eps / _norm(delta)).clamp(max=1), out=x_adv).clamp_(0, 1)

            return call

        sides["eager"] = Side(eager)
    return _case(suite, f"pgd_step {norm}", "step", "float32", shape, 3, 1, _images(device, shape), sides, backend)


def _norm(t):
    return t.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _momentum(suite, device, backend, shape) -> Case:
    eps, alpha = RADII["Linf"]
    images = _images(device, shape)

    def buffers(i):
        x_adv, g, x = images(i)
        return x_adv, torch.zeros_like(x), g, x

    def eager(x_adv, momentum, g, x):
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)

        def call():
            momentum.addcmul_(g, 1 / g.abs().mean((1, 2, 3), keepdim=True))
            x_adv.add_(momentum.sign(), alpha=alpha)
            torch.clamp(x_adv, min=low, max=high, out=x_adv)

        return call

    def ours(x_adv, momentum, g, x):
        return lambda: ops.momentum_step_(x_adv, momentum, g, x, eps=eps, alpha=alpha)

    sides = {backend: Side(ours), "eager": Side(eager)}
    return _case(suite, "momentum_step", "step", "float32", shape, 4, 2, buffers, sides, backend)


def _start(suite, device, backend, shape) -> Case:
    eps = RADII["Linf"][0]
    ids = torch.arange(shape[0], device=device)

    def ours(x_adv, g, x):
        return lambda: ops.random_start(x, eps=eps, seed=0, sample_ids=ids)

    def eager(x_adv, g, x):
        return lambda: x_adv.uniform_(-eps, eps).add_(x).clamp_(0, 1)

    # torch's generator in a graph needs registering: timed call by call.
    sides = {backend: Side(ours), "eager": Side(eager, graph=False)}
    return _case(suite, "random_start Linf", "start", "float32", shape, 1, 1, _images(device, shape), sides, backend)


def _loss(suite, device, backend, shape, loss, dtype) -> Case:
    """Loss and gradient at the logits, without autograd on our side: what an attack needs."""

    def buffers(i):
        torch.manual_seed(i)
        logits = (torch.randn(shape, device=device) * 4).to(DTYPES[dtype])
        return torch.randint(shape[1], shape[:1], device=device), logits

    def eager(y, logits):
        leaf = logits.detach().requires_grad_()

        def call():
            return torch.autograd.grad(_eager_loss(leaf.float(), y, loss).sum(), leaf)

        return call

    sides = {
        backend: Side(lambda y, logits: lambda: ops.attack_loss_and_grad(logits, y, loss)),
        "eager": Side(eager, graph=False),
    }
    return _case(suite, f"attack_loss {loss}", "loss", dtype, shape, 1, 1, buffers, sides, backend)


def _eager_loss(z, y, loss):
    if loss == "ce":
        return F.cross_entropy(z, y, reduction="none")
    ordered, places = z.sort(dim=1)
    right = z.gather(1, y[:, None])[:, 0]
    other = torch.where(places[:, -1] == y, ordered[:, -2], ordered[:, -1])
    return -(right - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)
