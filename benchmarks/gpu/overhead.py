"""What a call costs on the host: one element, on the device, the host's time only."""

from collections.abc import Iterable

import torch

from sat_kernels import nn
from sat_kernels.ops import pgd_step_

from .measure import Case, Side


def overhead_cases(suite: str, device: torch.device, backend: str) -> Iterable[Case]:
    """The host's clock: kernels of one element are done before the next is launched."""

    def case(name, needs_grad, sides):
        def buffers(i):
            return (torch.randn(1, device=device, requires_grad=needs_grad), torch.ones(1, device=device))

        return Case(suite, name, "host", "float32", 0, 0, buffers, sides, backend)

    def module(library, backward):
        def make(x, g):
            function = library.SiLU()
            if not backward:
                return lambda: function(x)
            return lambda: torch.autograd.grad(function(x), x, g)

        return Side(make, graph=False)

    def both(backward):
        return {backend: module(nn, backward), "aten": module(torch.nn, backward)}

    raw = torch.ops.sat_kernels.silu.default
    yield case("nn.SiLU, no grad", False, both(False))
    yield case("nn.SiLU, grad", True, both(False))
    yield case("nn.SiLU, forward and backward", True, both(True))
    operators = {backend: Side(lambda x, g: lambda: raw(x)), "aten": Side(lambda x, g: lambda: torch.ops.aten.silu(x))}
    yield case("operator", False, operators)
    yield case("pgd_step_", False, {backend: Side(_step), "aten": Side(_eager_step)})


def _step(x, g):
    x_adv = x.clone()
    return lambda: pgd_step_(x_adv, g, x, eps=0.1, alpha=0.1, clip_min=-9.0, clip_max=9.0)


def _eager_step(x, g):
    x_adv, low, high = x.clone(), x - 0.1, x + 0.1
    return lambda: torch.clamp(x_adv.add_(g.sign(), alpha=0.1), min=low, max=high, out=x_adv)
