"""What a call costs on the host: one element, on the device, the host's time only. And what a compiler makes of
modules.

Aims relative to torch.nn.SiLU: 2.5 without grad, 3.5 with, 2.0 forward and backward.
"""

from collections.abc import Iterator

import torch
from measuring.case import OURS, Case, Side

from sat_kernels import nn
from sat_kernels.ops import pgd_step_

from .setting import Setting, compiled


def suite(setting: Setting) -> Iterator[Case]:
    yield from calls(setting, "activations")
    if setting.at_least("default"):
        for name in ("SiLU", "GELU", "Softplus"):
            yield compiled_module(setting, name)


def calls(setting: Setting, suite: str) -> Iterator[Case]:
    """Kernels of one element are done before the next is launched."""

    def case(name, needs_grad, sides):
        def buffers(i):
            torch.manual_seed(i)
            return (
                torch.randn(1, device=setting.device, requires_grad=needs_grad),
                torch.ones(1, device=setting.device),
            )

        return Case(suite, name, "host", "float32", (1,), buffers, sides, threads=1)

    def module(library, backward):
        def make(x, g):
            function = library.SiLU()
            if not backward:
                return lambda: function(x)
            return lambda: torch.autograd.grad(function(x), x, g)

        return Side(make, graph=False)

    def both(backward):
        return {OURS: module(nn, backward), "aten": module(torch.nn, backward)}

    raw = torch.ops.sat_kernels.silu.default
    yield case("nn.SiLU, no grad", False, both(False))
    yield case("nn.SiLU, grad", True, both(False))
    yield case("nn.SiLU, forward and backward", True, both(True))
    operators = {OURS: Side(lambda x, g: lambda: raw(x)), "aten": Side(lambda x, g: lambda: torch.ops.aten.silu(x))}
    yield case("operator", False, operators)
    yield case("pgd_step_", False, {OURS: Side(_step), "aten": Side(_eager_step)})


def _step(x, g):
    x_adv = x.clone()
    return lambda: pgd_step_(x_adv, g, x, eps=0.1, alpha=0.1, clip_min=-9.0, clip_max=9.0)


def _eager_step(x, g):
    x_adv, low, high = x.clone(), x - 0.1, x + 0.1
    return lambda: torch.clamp(x_adv.add_(g.sign(), alpha=0.1), min=low, max=high, out=x_adv)


def compiled_module(setting: Setting, name: str) -> Case:
    """Under torch.compile our modules are plain PyTorch: the compiler has the same work with them as with torch's."""
    shape = (64,) if setting.smoke else (65_536,)

    def side(library):
        def make(x, g):
            leaf = x.detach().requires_grad_()
            module = compiled(setting, getattr(library, name)())
            return lambda: torch.autograd.grad(module(leaf), leaf, g)[0]

        return Side(make, graph=False, visible=False)

    def buffers(i):
        torch.manual_seed(i)
        return torch.randn(shape, device=setting.device), torch.randn(shape, device=setting.device)

    sides = {OURS: side(nn), "torch.nn": side(torch.nn)}
    return Case("activations", f"compiled nn.{name}", "both", "float32", shape, buffers, sides, threads=1)
