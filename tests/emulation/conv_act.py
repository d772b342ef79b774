"""Calls of the GPU's kernels of a network's first layer on the emulator, and what they should give."""

import ctypes

import torch
import torch.nn.functional as F
from attack_steps import Size, in_memory, size_of
from calls import DTYPES, activation_names, distinct
from emulated import Emulation, Memory, compile_library, poison
from latent import ActivationOf, activation_of, by_channel
from textbook import float64

GEOMETRY = ("samples", "channels", "height", "width", "filters", "out_height", "out_width")
GEOMETRY += ("kernel_height", "kernel_width", "stride", "padding")
# What an H100's block may have.
SHARED_BYTES = 227 << 10


class Images(ctypes.Structure):
    """As in csrc/conv_act.h."""

    _fields_ = (
        ("at", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        *((name, ctypes.c_int64) for name in ("sample", "channel", "row", "column")),
    )


class ConvGeometry(ctypes.Structure):
    """As in csrc/conv_act.h."""

    _fields_ = tuple((name, ctypes.c_int64) for name in GEOMETRY)


class ConvAct(ctypes.Structure):
    """As in csrc/conv_act.h."""

    _fields_ = (
        ("size", ConvGeometry),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "mean")),
        ("f", ActivationOf),
    )


class ConvForward(ctypes.Structure):
    """As in csrc/conv_act.h."""

    _fields_ = (("layer", ConvAct), *((name, Images) for name in ("x", "y", "z")))


class ConvStep(ctypes.Structure):
    """As in csrc/conv_act.h."""

    _fields_ = (
        ("layer", ConvAct),
        *((name, Images) for name in ("grad", "z", "x_adv", "x")),
        ("eps", Size),
        ("alpha", Size),
        ("lowest", ctypes.c_double),
        ("highest", ctypes.c_double),
        ("steps", ctypes.c_int64),
    )


class ConvKernels(Emulation):
    """The kernels of a network's first layer."""

    def __init__(self, folder):
        sources = [(f"../../csrc/cuda/conv_act_{name}.cu", "-xc++") for name in ("forward", "step")]
        super().__init__(compile_library(folder, *sources, ("conv_act.cpp",), ("activation_names.cpp",)))
        self.library.conv_step_room.restype = ctypes.c_int64
        self.library.conv_fits.restype = ctypes.c_bool
        self.names = activation_names(self.library)


def images_of(tensor, memory) -> Images:
    return Images(memory.address, DTYPES.index(tensor.dtype), *tensor.stride())


def layer_of(kernels, layer, x, memory) -> ConvAct:
    weight, name, numbers = layer["weight"], layer["name"], layer.get("numbers", ())
    stride, padding = layer["stride"], layer["padding"]
    out = [max(0, (n + 2 * padding - k) // stride + 1) for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
    size = (*x.shape, weight.shape[0], *out, *weight.shape[2:], stride, padding)
    job = ConvAct(size=ConvGeometry(*size), f=activation_of(kernels, name, numbers, memory))
    for k in ("weight", "bias", "mean"):
        if layer.get(k) is not None:
            memory[k] = Memory(layer[k])
            setattr(job, k, memory[k].address)
    return job


def placed(tensors, memory, writable=(), offsets=None):
    """Makes memory of tensors; gives their Images."""
    found = {}
    for k, given in tensors.items():
        memory[k] = Memory(in_memory(given), (offsets or {}).get(k, 0), k in writable)
        found[k] = images_of(given, memory[k])
    return found


def run_forward(kernels, layer, x, dtype, layout, keep_z, offsets=None, **settings):
    memory = {}
    job = ConvForward(layer=layer_of(kernels, layer, x, memory))
    job.x = placed({"x": x}, memory, offsets=offsets)["x"]
    size = job.layer.size
    like = torch.empty(size.samples, size.filters, size.out_height, size.out_width, dtype=dtype)
    like = like.contiguous(memory_format=layout)
    for k in ("y", "z") if keep_z else ("y",):
        memory[k] = poison(in_memory(like), (offsets or {}).get(k, 0))
        setattr(job, k, images_of(like, memory[k]))
    kernels.call("conv_forward", ctypes.byref(job), memory=distinct(memory.values()), **settings)
    return {k: memory[k].tensor.as_strided(like.shape, like.stride()) for k in ("y", "z") if k in memory}, memory


def run_conv_step(
    kernels, layer, tensors, eps, alpha, *, box=(0.0, 1.0), steps=1, shared_bytes=SHARED_BYTES, offsets=None, **settings
):
    """``tensors``: grad, x_adv, x and perhaps z, of any strides. Gives x_adv and all memory."""
    memory = {}
    job = ConvStep(layer=layer_of(kernels, layer, tensors["x"], memory), steps=steps, lowest=box[0], highest=box[1])
    for k, images in placed(tensors, memory, ("x_adv",), offsets).items():
        setattr(job, k, images)
    for k, given in (("eps", eps), ("alpha", alpha)):
        if isinstance(given, torch.Tensor):
            memory[k] = Memory(given)
        setattr(job, k, size_of(given, memory.get(k)))
    size = kernels.library.conv_step_room(ctypes.byref(job), shared_bytes)
    memory["room"] = poison(torch.empty(size, dtype=torch.uint8))
    room = ctypes.c_void_p(memory["room"].address)
    kernels.call("conv_step", ctypes.byref(job), room, shared_bytes, memory=distinct(memory.values()), **settings)
    like = tensors["x_adv"]
    return memory["x_adv"].tensor.as_strided(like.shape, like.stride()), memory


def convolved(layer, x):
    """z in float64, and the sum of the sizes of its terms."""
    bias, mean = layer.get("bias"), layer.get("mean")
    centred = x.double() if mean is None else x.double() - mean.double().view(-1, 1, 1)
    weight, where = layer["weight"].double(), {"stride": layer["stride"], "padding": layer["padding"]}
    z = F.conv2d(centred, weight, None if bias is None else bias.double(), **where)
    terms = F.conv2d(centred.abs(), weight.abs(), None if bias is None else bias.double().abs(), **where)
    return z, terms


def activated(layer, z, order=0):
    return float64(layer["name"], by_channel(layer.get("numbers", ()), z), z, order)


def slope_of(layer, z):
    z = z.double().detach().requires_grad_()
    return torch.autograd.grad(activated(layer, z, 1).sum(), z)[0]


def input_gradient(layer, x, gz):
    shape, where = x.shape, {"stride": layer["stride"], "padding": layer["padding"]}
    return torch.nn.grad.conv2d_input(shape, layer["weight"].double(), gz, **where)
