"""Calls of the GPU's kernels of what follows a convolution, on the emulator, and what they should give."""

import ctypes

import torch
from attack_steps import in_memory
from calls import DTYPES, activation_names, distinct
from emulated import Emulation, Memory, compile_library, poison
from latent import ActivationOf, activation_of, in_float64

# The order is Pass's in csrc/elementwise.h.
PASSES = ("forward", "backward")
VECTORS = ("bias", "scale", "shift")


class AffineAct(ctypes.Structure):
    """As in csrc/affine_act.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grad", "grad_sum", "sum", "residual", *VECTORS, "out")),
        ("f", ActivationOf),
        *((name, ctypes.c_int64) for name in ("size", "channels", "inner")),
    )


class AffineKernels(Emulation):
    """The kernels of what follows a convolution."""

    def __init__(self, folder):
        sources = [("../../csrc/cuda/affine_act.cu", "-xc++"), ("affine_act.cpp",), ("activation_names.cpp",)]
        super().__init__(compile_library(folder, *sources))
        self.names = activation_names(self.library)


def run_affine(kernels, kind, tensors, name, numbers=(), *, layout=None, offsets=None, **settings):
    """Runs a pass; gives all of its memory by name.

    ``tensors``: sum and whatever else the pass takes, by the names of AffineAct; all but vectors per channel dense and
    in one layout. Or Memory, where ``layout`` is (channels, inner). ``offsets``: in elements from 16-byte boundaries.
    """
    total, offsets = tensors["sum"], offsets or {}
    adds = kind == "forward" and ("bias" in tensors or "residual" in tensors)
    memory = {}
    for k, given in tensors.items():
        values = given if k in VECTORS or not isinstance(given, torch.Tensor) else in_memory(given)
        memory[k] = Memory(values, offsets.get(k, 0), k == "sum" and adds) if isinstance(given, torch.Tensor) else given
    if "out" not in memory:
        memory["out"] = poison(memory["sum"].tensor, offsets.get("out", 0))
    size = memory["sum"].tensor.numel()
    if layout is None:
        channels = total.shape[1] if total.dim() > 1 else 1
        layout = channels, total.stride(1) if channels > 1 else size
    job = AffineAct(size=size, channels=layout[0], inner=layout[1])
    for k, m in memory.items():
        setattr(job, k, m.address)
    job.f = activation_of(kernels, name, numbers, memory)
    dtype = DTYPES.index(memory["sum"].tensor.dtype)
    call = (PASSES.index(kind), dtype, ctypes.byref(job))
    kernels.call("affine_act", *call, memory=distinct(memory.values()), **settings)
    return memory


def spread(of_channels, like):
    """In float64, to broadcast over ``like``."""
    return of_channels.double().view(-1, *(1,) * (like.dim() - 2))


def added(tensors):
    """input + bias + residual in float64."""
    total = tensors["sum"].double()
    if "bias" in tensors:
        total = total + spread(tensors["bias"], total)
    return total + tensors["residual"].double() if "residual" in tensors else total


def expected(kind, tensors, total, name, numbers):
    """What the pass makes of ``total``, the sum."""
    z = total.double()
    scale = spread(tensors["scale"], z) if "scale" in tensors else 1.0
    z = scale * z + (spread(tensors["shift"], z) if "shift" in tensors else 0.0)
    value, slope = in_float64(name, numbers, z)
    if kind == "forward":
        return value
    found = tensors["grad"].double() * slope * scale
    return found + tensors["grad_sum"].double() if "grad_sum" in tensors else found
