"""What the machine can do, by PyTorch's own operators: the denominators of everything else."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from measuring.case import DTYPES, Case, Side
from measuring.memory import last_cache

from .setting import Setting, number_types

COPY = "copy"
SIZES = tuple(1 << n for n in range(16, 29))  # bytes: 64 KiB to 256 MiB
PRODUCT = 1024
# Batch, channels in and out, image size.
CONVOLUTIONS = ((32, 64, 64, 32), (32, 256, 256, 8))


def suite(setting: Setting) -> Iterator[Case]:
    every = setting.pick((1 << 8, 1 << 12), quick=SIZES[::2], default=SIZES)
    for dtype in ("float32", "bfloat16") if setting.at_least("default") else ("float32",):
        # It copies bytes, whatever their type: of the second one fewer.
        sizes = every if dtype == "float32" or setting.smoke else SIZES[::2]
        for threads in (1, None):
            for size in sizes:
                if size <= last_cache(setting.device):
                    yield copy(setting, size, dtype, threads, cold=False)
            for size in sizes:
                yield copy(setting, size, dtype, threads, cold=True)
    for dtype in number_types(setting):
        yield product(setting, 16 if setting.smoke else PRODUCT, dtype)
        for geometry in ((2, 4, 4, 8),) if setting.smoke else CONVOLUTIONS:
            yield convolution(setting, geometry, dtype)
    yield from launches(setting)


def copy(setting: Setting, size: int, dtype: str, threads: int | None, *, cold: bool) -> Case:
    """Into memory that is there: it reads and writes ``size`` bytes."""
    elements = size // DTYPES[dtype].itemsize

    def buffers(i):
        # Ones: pages of zeros would be one page of memory.
        return tuple(torch.ones(elements, device=setting.device, dtype=DTYPES[dtype]) for _ in range(2))

    sides = {"torch": Side(lambda x, y: lambda: y.copy_(x))}
    return Case("limits", COPY, "copy", dtype, (elements,), buffers, sides, 2 * size, cold=cold, threads=threads)


def product(setting: Setting, n: int, dtype: str) -> Case:
    def buffers(i):
        torch.manual_seed(i)
        return tuple(torch.randn(n, n, device=setting.device).to(DTYPES[dtype]) for _ in range(3))

    sides = {"torch": Side(lambda a, b, c: lambda: torch.mm(a, b, out=c))}
    moved = 3 * n * n * DTYPES[dtype].itemsize
    return Case("limits", "matrix product", "forward", dtype, (n, n), buffers, sides, moved, 2 * n**3)


def convolution(setting: Setting, geometry, dtype: str) -> Case:
    """3x3, in channels_last."""
    batch, channels, filters, side = geometry

    def buffers(i):
        torch.manual_seed(i)
        shapes = (batch, channels, side, side), (filters, channels, 3, 3)
        made = (torch.randn(shape, device=setting.device).to(DTYPES[dtype]) for shape in shapes)
        return tuple(t.contiguous(memory_format=torch.channels_last) for t in made)

    @torch.no_grad()
    def call(x, weight):
        return F.conv2d(x, weight, padding=1)

    sides = {"torch": Side(lambda x, weight: lambda: call(x, weight))}
    pixels = batch * side**2
    moved = (pixels * (channels + filters) + 9 * channels * filters) * DTYPES[dtype].itemsize
    name, shape = f"convolution 3x3, {filters} filters", (batch, channels, side, side)
    flops = 2 * 9 * pixels * channels * filters
    return Case("limits", name, "forward", dtype, shape, buffers, sides, moved, flops, "channels_last")


def launches(setting: Setting) -> Iterator[Case]:
    def buffers(i):
        return (torch.zeros(1, device=setting.device),)

    silu = torch.nn.SiLU()
    for name, make in (("x.add_(1)", lambda x: lambda: x.add_(1)), ("torch.nn.SiLU", lambda x: lambda: silu(x))):
        yield Case("limits", f"launch of {name}", "host", "float32", (1,), buffers, {"torch": Side(make)}, threads=1)
