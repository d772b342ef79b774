"""Calls of the GPU's kernels on the emulator, and what they should give."""

import ctypes

import torch
from emulated import Emulation, Memory, compile_library, poison
from raw import LEARNABLE, computed_in
from textbook import float64

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Of each pass: what it reads and what it writes. The order is Pass's in csrc/elementwise.h.
PASSES = {
    "forward": (("input",), ("out",)),
    "backward": (("grad", "input"), ("out",)),
    "double_backward": (("grad_grad", "grad", "input"), ("grad_out", "out")),
    "parameter_backward": (("grad", "input"), ("out",)),
}
MOST_NUMBERS = 2


class Elementwise(ctypes.Structure):
    """As in csrc/elementwise.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grad_grad", "grad", "input", "out", "grad_out")),
        ("numbers", ctypes.c_double * MOST_NUMBERS),
        ("parameters", ctypes.c_void_p * MOST_NUMBERS),
        ("parameter_grads", ctypes.c_void_p * MOST_NUMBERS),
        ("channels", ctypes.c_int64),
        ("inner", ctypes.c_int64),
    )


def activation_names(library: ctypes.CDLL) -> list[str]:
    """In the order of their numbers."""
    library.activation_names.restype = ctypes.c_char_p
    return library.activation_names().decode().split()


class Kernels(Emulation):
    """The project's kernels."""

    def __init__(self, folder):
        types = [(f"../../csrc/cuda/{str(dtype)[6:]}.cu", "-xc++") for dtype in DTYPES]
        super().__init__(compile_library(folder, *types, ("library.cpp",), ("activation_names.cpp",)))
        self.library.partial_sums.restype = ctypes.c_int64
        self.names = activation_names(self.library)

    def run(self, name: str, kind: str, tensors: dict, numbers: tuple, inner: int = 1, **settings) -> dict[str, Memory]:
        """Runs a pass; gives all of its memory by name.

        ``tensors``: its inputs, equal in size and dtype, as tensors, or as Memory that is prepared already; outputs
        that are not there are made, full of NaN. ``numbers``: one for all, or a vector with one for each channel; an
        element's channel is its index / ``inner`` % channels.
        """
        memory = {k: Memory(v) if isinstance(v, torch.Tensor) else v for k, v in tensors.items()}
        inputs, outputs = PASSES[kind]
        x = memory["input"].tensor
        memory = {k: poison(x) for k in outputs if k not in memory} | memory
        learned = name in LEARNABLE
        channels = numbers[0].numel() if learned else 1
        job = Elementwise(channels=channels, inner=inner)
        for k in (*inputs, *outputs):
            setattr(job, k, memory[k].address)
        for i, number in enumerate(numbers):
            if not learned:
                job.numbers[i] = number
                continue
            memory[f"parameter {i}"] = Memory(number.to(computed_in(x.dtype)))
            job.parameters[i] = memory[f"parameter {i}"].address
            if kind == "parameter_backward":
                memory[f"parameter_grad {i}"] = poison(memory[f"parameter {i}"].tensor)
                job.parameter_grads[i] = memory[f"parameter_grad {i}"].address
        size, dtype, partial = ctypes.c_int64(x.numel()), DTYPES.index(x.dtype), None
        if kind == "parameter_backward":
            count = self.library.partial_sums(dtype, ctypes.byref(job), size)
            memory["partial"] = poison(torch.empty(count, dtype=computed_in(x.dtype)))
            partial = ctypes.c_void_p(memory["partial"].address)
        arguments = (self.names.index(name), list(PASSES).index(kind), dtype, ctypes.byref(job), size, partial)
        self.call("elementwise", *arguments, memory=distinct(memory.values()), **settings)
        return memory


def distinct(memory) -> list[Memory]:
    return list({id(m): m for m in memory}.values())


def spread(numbers: tuple, size: int, inner: int) -> tuple:
    """Each element's numbers, in float64, rounded as the kernels have them."""
    channel = torch.arange(size) // inner
    return tuple(n[channel % n.numel()] if isinstance(n, torch.Tensor) else n for n in numbers)


def expected(name: str, kind: str, tensors: dict, numbers: tuple, inner: int = 1) -> dict[str, torch.Tensor]:
    """What the pass writes, and the terms of parameters' gradients, in float64."""
    x, *others = (tensors[k].double() for k in ("input", "grad", "grad_grad") if k in tensors)
    x = x.requires_grad_()
    dtype = computed_in(tensors["input"].dtype)
    each = spread(tuple(n.to(dtype).double() if isinstance(n, torch.Tensor) else n for n in numbers), x.numel(), inner)
    each = tuple(n.clone().requires_grad_() if isinstance(n, torch.Tensor) else n for n in each)
    if kind == "forward":
        return {"out": float64(name, each, x).detach()}
    y = float64(name, each, x, 2 if kind == "double_backward" else 1)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    grad = others[0]
    if kind == "double_backward":
        (second,) = torch.autograd.grad(first.sum(), x, allow_unused=True)
        return {"grad_out": others[1] * first.detach(), "out": others[1] * grad * second}
    result = {"out": grad * first.detach()}
    if kind == "parameter_backward":
        slopes = torch.autograd.grad(float64(name, each, x).sum(), each)
        result |= {f"terms {k}": grad * slope for k, slope in enumerate(slopes)}
    return result


def close(found: torch.Tensor, wanted: torch.Tensor, name: str = ""):
    """Roughly: enough to see a wrong element; test_accuracy.py looks at the digits."""
    eps = max(torch.finfo(found.dtype).eps, 2.0**-40)
    bad = ~((found.double() - wanted).abs() <= 8 * eps * (wanted.abs() + 1))
    where = bad.nonzero().flatten()[:5]
    assert not bad.any(), (
        f"{name}: {int(bad.sum())} of {bad.numel()} wrong, at {where.tolist()}: {found[where]} for {wanted[where]}"
    )


def values(size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """No two neighbours equal, none 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, generator=generator, dtype=torch.float64) * 4 + 0.1
    return (x * torch.where(torch.rand(size, generator=generator) < 0.5, -1, 1)).to(dtype)
