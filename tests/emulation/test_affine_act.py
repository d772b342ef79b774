"""The GPU's kernels of what follows a convolution: their results, and what they read and write."""

import itertools
import math

import pytest
import torch
from affine_act import PASSES, VECTORS, added, expected, run_affine
from calls import DTYPES, close, values
from emulated import ORDERS
from latent import of_shape
from raw import computed_in
from test_latent import parameters_of

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import affine_act_

TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
KINDS = pytest.mark.parametrize("kind", PASSES)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# What a pass may be given beside sum and grad.
OPTIONS = {"forward": ("bias", "residual", "scale", "shift"), "backward": ("grad_sum", "scale", "shift")}


def case(kind, shape, dtype, layout=torch.contiguous_format, options=None, seed=0):
    """Everything that the pass takes, or what ``options`` names. Neighbouring channels have different numbers."""
    size, channels, wide = math.prod(shape), shape[1], computed_in(dtype)
    found = {}
    names = ("sum", *["grad"] * (kind == "backward"), *(OPTIONS[kind] if options is None else options))
    for k, name in enumerate(names):
        if name in VECTORS:
            found[name] = values(channels, wide, seed + k) / 2
        else:
            found[name] = values(size, dtype, seed + k).view(shape).clone(memory_format=torch.contiguous_format)
            if len(shape) == 4:
                found[name] = found[name].contiguous(memory_format=layout)
    return found


def check(kernels, kind, tensors, name="silu", numbers=(), **settings):
    memory = run_affine(kernels, kind, tensors, name, numbers, **settings)
    total = of_shape(memory, "sum", tensors["sum"])
    close(total.flatten(), added(tensors).flatten(), "sum")
    wanted = expected(kind, tensors, total, name, numbers)
    close(of_shape(memory, "out", tensors["sum"]).flatten(), wanted.flatten(), "out")
    return memory


@KINDS
@TYPES
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_and_pass(affine_act, name, dtype, kind):
    check(affine_act, kind, case(kind, (2, 5, 103), dtype), name, parameters_of(name, dtype))


# A channel or two in an access, several, all of it; whole accesses of neighbouring channels, or not.
SHAPES = [(2, 3, 8, 8), (2, 3, 7, 7), (3, 5, 3, 3), (5, 4, 1, 3), (2, 24, 3, 3), (2, 20, 2, 5), (1, 1, 9, 9)]


@pytest.mark.parametrize("layout", LAYOUTS)
@KINDS
@TYPES
def test_channels(affine_act, dtype, kind, layout):
    for shape in SHAPES:
        check(affine_act, kind, case(kind, shape, dtype, LAYOUTS[layout]))


@pytest.mark.parametrize("layout", LAYOUTS)
@KINDS
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("name", ["swish", "smu"])
def test_parameters_of_channels(affine_act, name, dtype, kind, layout):
    for shape, options in itertools.product(SHAPES, (None, ())):
        given = case(kind, shape, dtype, LAYOUTS[layout], options)
        check(affine_act, kind, given, name, parameters_of(name, dtype, shape[1]))


@pytest.mark.parametrize("layout", LAYOUTS)
@KINDS
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_each_option(affine_act, dtype, kind, layout):
    for n in range(len(OPTIONS[kind]) + 1):
        for some in itertools.combinations(OPTIONS[kind], n):
            memory = check(affine_act, kind, case(kind, (2, 8, 3, 5), dtype, LAYOUTS[layout], some), "gelu")
            assert bool(memory["sum"].counts["stores"]) == bool({"bias", "residual"} & set(some))


@pytest.mark.parametrize("layout", LAYOUTS)
@TYPES
def test_as_on_the_cpu(affine_act, dtype, layout):
    """The sums bit for bit."""
    given = case("forward", (2, 24, 5, 7), dtype, LAYOUTS[layout])
    total = given["sum"].clone()
    rest = {k: v for k, v in given.items() if k != "sum"}
    wanted = affine_act_(total, activation="mish", **rest)
    memory = check(affine_act, "forward", given, "mish")
    assert torch.equal(of_shape(memory, "sum", total), total)
    close(of_shape(memory, "out", total).flatten(), wanted.double().flatten())


@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
def test_f_is_taken_of_the_stored_sum(affine_act, dtype):
    """The next numbers are 2 away: the addends are lost, and f is 0."""
    large = 256.0 if dtype == torch.bfloat16 else 2048.0
    given = {"sum": torch.full((1, 1, 4), large, dtype=dtype), "bias": torch.tensor([0.75])}
    given |= {"residual": torch.full((1, 1, 4), 0.125, dtype=dtype), "shift": torch.tensor([-large])}
    memory = run_affine(affine_act, "forward", given, "gelu")
    assert memory["sum"].tensor.tolist() == [large] * 4
    assert memory["out"].tensor.tolist() == [0.0] * 4


@KINDS
@TYPES
def test_sizes(affine_act, dtype, kind):
    """Around those of an access, a warp's, a block's, and several blocks'."""
    pieces = [16 // dtype.itemsize * n for n in (1, 32, 128, 384)]
    for size in sorted({1, *(n + d for n in pieces for d in (-1, 0, 1) if n + d > 0)}):
        check(affine_act, kind, case(kind, (1, 1, size), dtype))
        check(affine_act, kind, case(kind, (1, size), dtype))


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@KINDS
def test_order_of_threads(affine_act, kind, order, seed):
    given = case(kind, (3, 3, 20, 21), torch.bfloat16)
    check(affine_act, kind, given, "swish", parameters_of("swish", torch.bfloat16, 3), order=order, seed=seed)


@pytest.mark.parametrize("layout", LAYOUTS)
@KINDS
@TYPES
def test_misaligned_pointers(affine_act, dtype, kind, layout):
    given = case(kind, (2, 8, 9, 8), dtype, LAYOUTS[layout])
    names = [*given, "out"]
    for moved in (*([k] for k in names), names):
        memory = check(affine_act, kind, given, offsets=dict.fromkeys(moved, 1))
        whole = set(moved) <= set(VECTORS)
        assert set(memory["out"].counts["stores"]) == {16 if whole else dtype.itemsize}


# How often each element is read and written.
TRAFFIC = {
    "forward": {"sum": (1, 1), "residual": (1, 0), "out": (0, 1)},
    "backward": {"sum": (1, 0), "grad": (1, 0), "grad_sum": (1, 0), "out": (0, 1)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 8, 16, 8), (4, 8, 7, 7), (8, 3, 4, 4)], ids=str)
@TYPES
@KINDS
def test_accesses(affine_act, kind, dtype, shape, layout):
    """Of 16 bytes, whatever the channels."""
    memory = check(affine_act, kind, case(kind, shape, dtype, LAYOUTS[layout]))
    pieces = math.prod(shape) * dtype.itemsize // 16
    for name, times in TRAFFIC[kind].items():
        for way, n in zip(("loads", "stores"), times, strict=True):
            assert memory[name].counts[way] == ({16: pieces} if n else {}), (name, way)


@pytest.mark.parametrize("layout", LAYOUTS)
@TYPES
@KINDS
def test_accesses_to_numbers_of_channels(affine_act, kind, dtype, layout):
    """Of two channels for 16 bytes of a plane; of neighbouring channels, 16 bytes at a time."""
    shape, wide = (2, 8, 7, 8), computed_in(dtype).itemsize
    memory = run_affine(affine_act, kind, case(kind, shape, dtype, LAYOUTS[layout]), "silu")
    pieces = math.prod(shape) * dtype.itemsize // 16
    wanted = {wide: 2 * pieces} if layout == "NCHW" else {16: math.prod(shape) * wide // 16}
    for name in set(VECTORS) & set(memory):
        assert memory[name].counts == {"loads": wanted, "stores": {}}


@KINDS
def test_without_options(affine_act, kind):
    """Nothing but what the activation reads and writes."""
    memory = check(affine_act, kind, case(kind, (2, 3, 8, 8), torch.float32, options=()))
    assert memory["sum"].counts == {"loads": {16: 96}, "stores": {}}


def test_zeros_keep_their_signs(affine_act):
    zeros = torch.tensor([[[0.0, -0.0, 0.0, -0.0]]])
    found = run_affine(affine_act, "forward", {"sum": zeros}, "silu")["out"].tensor
    assert torch.equal(found.signbit(), zeros.flatten().signbit())
