"""Calls of the GPU's kernels of perturbed activations on the emulator, and what they should give."""

import ctypes

import torch
from attack_steps import Size, in_memory, size_of
from calls import DTYPES, MOST_NUMBERS, activation_names, distinct
from emulated import Emulation, Memory, compile_library, poison
from raw import LEARNABLE, computed_in
from textbook import float64

# The order is LatentPass's in csrc/latent.h.
PASSES = ("forward", "backward", "linf", "l2")
SIZES = ("eps", "alpha", "lo", "hi")


class ActivationOf(ctypes.Structure):
    """As in csrc/latent.h."""

    _fields_ = (
        ("which", ctypes.c_int),
        ("numbers", ctypes.c_double * MOST_NUMBERS),
        ("parameters", ctypes.c_void_p * MOST_NUMBERS),
        ("channels", ctypes.c_int64),
    )


class LatentJob(ctypes.Structure):
    """As in csrc/latent.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grad", "z", "delta", "out")),
        ("f", ActivationOf),
        *((name, ctypes.c_int64) for name in ("samples", "sample_size", "channels", "inner")),
        *((name, Size) for name in SIZES),
    )


class Latent(Emulation):
    """The kernels of perturbed activations."""

    def __init__(self, folder):
        sources = [("../../csrc/cuda/latent.cu", "-xc++"), ("latent.cpp",), ("activation_names.cpp",)]
        super().__init__(compile_library(folder, *sources))
        self.names = activation_names(self.library)


def activation_of(kernels, name, numbers, memory) -> ActivationOf:
    """``numbers``: as calls.Kernels.run() takes them, in the type that is computed in; ``memory`` gets theirs."""
    f = ActivationOf(which=kernels.names.index(name), channels=1)
    for k, number in enumerate(numbers):
        if name in LEARNABLE:
            memory[f"parameter {k}"] = Memory(number)
            f.parameters[k], f.channels = memory[f"parameter {k}"].address, number.numel()
        else:
            f.numbers[k] = number
    return f


def run_latent(kernels, kind, tensors, name, numbers=(), *, keep_out=None, offsets=None, **settings):
    """Runs a pass; gives all of its memory by name.

    ``tensors``: grad, z and delta, all dense and in one layout; eps, alpha, lo and hi are numbers or (samples or 1,
    channels or 1) tensors. ``keep_out``: whether a step writes its gradient. ``offsets``: in elements from 16-byte
    boundaries.
    """
    z, memory, offsets = tensors["z"], {}, offsets or {}
    step = kind in ("linf", "l2")
    job = LatentJob(samples=z.shape[0], sample_size=z[0].numel(), channels=z.shape[1] if z.dim() > 1 else 1)
    job.inner = z.stride(1) if job.channels > 1 else job.sample_size
    job.f = activation_of(kernels, name, numbers, memory)
    for k, given in tensors.items():
        if isinstance(given, torch.Tensor):
            memory[k] = Memory(given if k in SIZES else in_memory(given), offsets.get(k, 0), k == "delta" and step)
        setattr(job, k, size_of(given, memory.get(k)) if k in SIZES else memory[k].address)
    for k, default in (("lo", -float("inf")), ("hi", float("inf"))):
        if k not in tensors:
            setattr(job, k, Size(number=default))
    if not step or keep_out:
        memory["out"] = poison(in_memory(z), offsets.get("out", 0))
        job.out = memory["out"].address
    kernels.call(
        "latent",
        PASSES.index(kind),
        DTYPES.index(z.dtype),
        ctypes.byref(job),
        memory=distinct(memory.values()),
        **settings,
    )
    return memory


def of_shape(memory, name, like) -> torch.Tensor:
    return memory[name].tensor.as_strided(like.shape, like.stride())


def by_channel(numbers, x) -> tuple:
    """Each element's numbers, in float64."""
    others = (1,) * (x.dim() - 2)
    return tuple(
        n if not isinstance(n, torch.Tensor) else n.double().view((-1, *others) if n.numel() > 1 else ())
        for n in numbers
    )


def in_float64(name, numbers, x) -> tuple[torch.Tensor, torch.Tensor]:
    """f and f' at x."""
    numbers, x = by_channel(numbers, x), x.double().detach().requires_grad_()
    (slope,) = torch.autograd.grad(float64(name, numbers, x, 1).sum(), x)
    return float64(name, numbers, x).detach(), slope


def perturbed(tensors) -> torch.Tensor:
    """z + delta, as rounded as the kernels have it."""
    return tensors["z"].to(computed_in(tensors["z"].dtype)) + tensors["delta"]
