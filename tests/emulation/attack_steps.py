"""Calls of the GPU's steps on the emulator."""

import ctypes

import torch
from calls import DTYPES, distinct
from emulated import Emulation, Memory, compile_library, poison


class Size(ctypes.Structure):
    """As in csrc/steps.h."""

    _fields_ = (
        ("number", ctypes.c_double),
        ("of", ctypes.c_void_p),
        ("per_sample", ctypes.c_int64),
        ("per_channel", ctypes.c_int64),
    )


class NetworkInput(ctypes.Structure):
    """As in csrc/steps.h."""

    _fields_ = (
        ("to", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        *((name, ctypes.c_int64) for name in ("per_sample", "per_channel", "per_place")),
        ("mean", ctypes.c_void_p),
        ("deviation", ctypes.c_void_p),
    )


class AttackStep(ctypes.Structure):
    """As in csrc/steps.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x_adv", "grad", "x")),
        *((name, ctypes.c_int64) for name in ("samples", "sample_size", "channels", "inner")),
        ("eps", Size),
        ("alpha", Size),
        ("lowest", ctypes.c_double),
        ("highest", ctypes.c_double),
        ("mask", ctypes.c_void_p),
        ("active", ctypes.c_void_p),
        ("out", NetworkInput),
        ("momentum", ctypes.c_void_p),
        ("decay", ctypes.c_double),
        ("x_prev", ctypes.c_void_p),
        ("first", ctypes.c_bool),
        ("top_k", Size),
        ("skip_faces", ctypes.c_bool),
    )


class AttackSteps(Emulation):
    """The steps' kernels."""

    def __init__(self, folder):
        sources = [(f"../../csrc/cuda/{name}.cu", "-xc++") for name in ("linf", "momentum", "l2", "l1")]
        super().__init__(compile_library(folder, *sources, ("attack_steps.cpp",)))
        self.library.l1_room.restype = ctypes.c_int64


WRITTEN = ("x_adv", "momentum", "x_prev", "out")


def run_step(
    kernels,
    function,
    tensors,
    *,
    lowest=0.0,
    highest=1.0,
    decay=1.0,
    first=False,
    skip_faces=True,
    offsets=None,
    samples=1,
    **settings,
):
    """Runs a step; gives all of its memory by name, of which ``result`` makes tensors again.

    ``tensors``: x_adv, x and whatever else the step takes, by the names of AttackStep, all dense and in x_adv's layout,
    which has one sample after the other; but eps, alpha and top_k are numbers or (samples or 1, channels or 1) tensors,
    and out has any layout. ``offsets``: in elements from 16-byte boundaries. Or Memory, of so many ``samples``.
    """
    x_adv, channels = tensors["x_adv"], 1
    if isinstance(x_adv, torch.Tensor):
        samples, channels = x_adv.shape[0], x_adv.shape[1] if x_adv.dim() > 1 else 1
    else:
        x_adv = x_adv.tensor
    job = AttackStep(samples=samples, sample_size=x_adv.numel() // samples, channels=channels, decay=decay, first=first)
    job.lowest, job.highest, job.skip_faces = lowest, highest, skip_faces
    job.inner = x_adv.stride(1) if channels > 1 else job.sample_size
    memory = {}
    for name, given in tensors.items():
        if isinstance(given, torch.Tensor):
            memory[name] = Memory(in_memory(given), (offsets or {}).get(name, 0), name in WRITTEN)
        elif not isinstance(given, float):
            memory[name] = given
        if name in ("eps", "alpha", "top_k"):
            setattr(job, name, size_of(given, memory.get(name)))
        elif name == "out":
            strides = [given.stride(d) if d < given.dim() else 0 for d in (0, 1)]
            place = min((s for s, n in zip(given.stride()[2:], given.shape[2:], strict=True) if n > 1), default=0)
            job.out.to, job.out.dtype = memory[name].address, DTYPES.index(given.dtype)
            job.out.per_sample, job.out.per_channel, job.out.per_place = *strides, place
        elif name in ("mean", "deviation"):
            setattr(job.out, name, memory[name].address)
        else:
            setattr(job, name, memory[name].address)
    types = [DTYPES.index(memory.get(name, memory["x_adv"]).tensor.dtype) for name in ("x_adv", "grad")]
    room = []
    if function == "l1":
        memory["room"] = poison(torch.empty(kernels.library.l1_room(types[0], ctypes.byref(job)), dtype=torch.uint8))
        room = [ctypes.c_void_p(memory["room"].address)]
    kernels.call(function, *types, ctypes.byref(job), *room, memory=distinct(memory.values()), **settings)
    return memory


def size_of(given, memory) -> Size:
    if memory is None:
        return Size(number=given)
    rows, columns = given.shape
    return Size(of=memory.address, per_sample=columns if rows > 1 else 0, per_channel=1 if columns > 1 else 0)


def in_memory(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a dense tensor as they lie in memory."""
    return tensor.as_strided((tensor.numel(),), (1,))


def result(memory, tensors, name) -> torch.Tensor:
    """What a step left of one of its tensors, in its shape and layout."""
    given = tensors[name]
    return memory[name].tensor.as_strided(given.shape, given.stride())
