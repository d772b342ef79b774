"""Where cases run, how much is measured, and what several of them need."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measuring.case import Call, Side
from torch import Tensor

from sat_kernels.attacks.engine import has_bf16

LEVELS = ("smoke", "quick", "default", "full")
EPS, ALPHA = 8 / 255, 2 / 255
MIB = 1 << 20
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """level: "smoke" shows that everything runs, on tiny tensors; the others are what a user asks for.

    compiler: the back end of torch.compile.
    """

    device: torch.device = CPU
    level: str = "default"
    compiler: str = "inductor"

    @property
    def smoke(self) -> bool:
        return self.level == "smoke"

    def at_least(self, level: str) -> bool:
        """Smoke has something of everything: it is as much as the fullest, on less."""
        return self.smoke or LEVELS.index(self.level) >= LEVELS.index(level)

    def pick(self, smoke, *, quick, default=None, full=None):
        """What is given for this level, or for the next one below it."""
        if self.smoke:
            return smoke
        given = [quick, default, full][: LEVELS.index(self.level)]
        return [g for g in given if g is not None][-1]


def images(setting: Setting, shape, layout: torch.memory_format = torch.contiguous_format) -> Callable[[int], tuple]:
    """Makes x_adv, a gradient and x."""

    def buffers(i):
        torch.manual_seed(i)
        x = torch.rand(shape, device=setting.device)
        x = x.contiguous(memory_format=layout) if len(shape) == 4 else x
        return (x + 0.001).clamp_(max=1), torch.randn_like(x), x

    return buffers


def norms(t: Tensor) -> Tensor:
    """Of samples, to divide them by."""
    return t.flatten(1).norm(dim=1).view(-1, *(1,) * (t.dim() - 1))


def compiled(setting: Setting, function: Callable) -> Callable:
    """``function`` compiled for one shape."""
    return torch.compile(function, fullgraph=True, dynamic=False, backend=setting.compiler)


def compiled_once(setting: Setting, function: Callable) -> Callable[[], Callable]:
    """Compiles ``function`` when it is first asked for, and no second time."""
    return functools.cache(lambda: compiled(setting, function))


def compiled_side(setting: Setting, function: Callable, **options) -> Side:
    """``function`` of the buffers, compiled once for all sets of them."""
    made = compiled_once(setting, function)

    def make(*buffers) -> Call:
        run = made()

        def call():
            with torch.no_grad():
                return run(*buffers)

        return call

    return Side(make, visible=False, **options)


def number_types(setting: Setting) -> list[str]:
    """Those that the device computes in, and not only stores."""
    return ["float32"] + ["bfloat16"] * has_bf16(setting.device)
