"""What the GPU's kernels read and write: every size, address and layout; how often, and in how large pieces."""

import itertools

import pytest
import torch
from calls import DTYPES, LEARNABLE, PASSES, close, expected, values
from emulated import ORDERS, Memory, poison

from sat_kernels.activations import ACTIVATIONS

# One of each size: memory is the same to bfloat16 and float16.
TYPES = pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
KINDS = pytest.mark.parametrize("kind", PASSES)
# An activation of each kind: with fixed numbers, with one learnable parameter, with two.
SOME = ["softplus", "swish", "smu"]
NAMES = pytest.mark.parametrize("name", SOME)
FIXED = {"softplus": (2.5, 20.0), "elu": (1.7,), "celu": (0.5,), "relu_smooth_backward": (10.0,)}


def numbers_of(name, channels=1):
    """All different, and in every domain."""
    if name not in LEARNABLE:
        return FIXED.get(name, ())
    first, second = (torch.linspace(*ends, channels, dtype=torch.float64) for ends in ((2.5, 0.5), (0.3, 0.7)))
    return (first, second)[: len(ACTIVATIONS[name].parameters)]


def inputs_of(kind, size, dtype):
    return {k: values(size, dtype, seed) for seed, k in enumerate(PASSES[kind][0])}


def check(memory, kind, tensors, name, numbers, inner=1):
    """All results are right."""
    wanted = expected(name, kind, tensors, numbers, inner)
    for k in PASSES[kind][1]:
        close(memory[k].tensor, wanted[k], k)
    if kind == "parameter_backward":
        channels = numbers[0].numel()
        channel = torch.arange(tensors["input"].numel()) // inner % channels
        for k in range(len(numbers)):
            terms, found = wanted[f"terms {k}"], memory[f"parameter_grad {k}"].tensor
            sums, sizes = (torch.zeros(channels).double().index_add_(0, channel, t) for t in (terms, terms.abs()))
            assert ((found.double() - sums).abs() <= 1e-5 * (sizes + 1)).all(), f"{found} for {sums}"


def skip_fixed(name, kind):
    if kind == "parameter_backward" and name not in LEARNABLE:
        pytest.skip("no parameters")


@KINDS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_and_pass(kernels, name, dtype, kind):
    skip_fixed(name, kind)
    tensors, numbers = inputs_of(kind, 1030, dtype), numbers_of(name)
    check(kernels.run(name, kind, tensors, numbers), kind, tensors, name, numbers)


@KINDS
@TYPES
@NAMES
def test_sizes(kernels, name, dtype, kind):
    """Around those of an access, a warp's accesses, a block's, and several blocks'."""
    skip_fixed(name, kind)
    item = dtype.itemsize
    pieces = [16 // item * n for n in (1, 32, 128, 256, 512, 1024, 3 * 1024)]
    for size in sorted({1, *(n + d for n in pieces for d in (-1, 0, 1) if n + d > 0)}):
        tensors, numbers = inputs_of(kind, size, dtype), numbers_of(name)
        check(kernels.run(name, kind, tensors, numbers), kind, tensors, name, numbers)


@pytest.mark.parametrize("size", [129, 4096])
@KINDS
@TYPES
@NAMES
def test_misaligned_pointers(kernels, name, dtype, kind, size):
    skip_fixed(name, kind)
    tensors, numbers = inputs_of(kind, size, dtype), numbers_of(name)
    arguments = [*PASSES[kind][0], *PASSES[kind][1]]
    for moved in (*([k] for k in arguments), arguments):
        for offset in (1, 16 // dtype.itemsize - 1):
            placed = {k: Memory(v, offset * (k in moved)) for k, v in tensors.items()}
            outputs = {k: poison(tensors["input"], offset * (k in moved)) for k in PASSES[kind][1]}
            check(kernels.run(name, kind, placed | outputs, numbers), kind, tensors, name, numbers)


@pytest.mark.parametrize("size", [1, 129, 4099])
@KINDS
@TYPES
@NAMES
def test_in_place(kernels, name, dtype, kind, size):
    """Any output may be any input."""
    skip_fixed(name, kind)
    tensors, numbers = inputs_of(kind, size, dtype), numbers_of(name)
    for out in PASSES[kind][1]:
        for over in PASSES[kind][0]:
            placed = {k: Memory(v, writable=k == over) for k, v in tensors.items()}
            memory = kernels.run(name, kind, placed | {out: placed[over]}, numbers)
            check(memory, kind, tensors, name, numbers)


@pytest.mark.parametrize("channels", [1, 3, 8, 24, 100])
@KINDS
@TYPES
@pytest.mark.parametrize("name", SOME[1:])
def test_channels(kernels, name, dtype, kind, channels):
    """inner = 1 is channels_last, more is NCHW."""
    numbers = numbers_of(name, channels)
    for inner, outer, offset in itertools.product((1, 7, 16, 49, 64), (1, 11), (0, 1)):
        tensors = inputs_of(kind, outer * channels * inner, dtype)
        placed = {k: Memory(v, offset) for k, v in tensors.items()}
        memory = kernels.run(name, kind, placed, numbers, inner=inner)
        check(memory, kind, tensors, name, numbers, inner)


# Many rows for each split of a channel, long rows, more channels than threads in a block.
SHAPES = [(1, 1, 300_000), (20_000, 3, 5), (2, 3, 40_000), (3000, 40, 1), (5, 2100, 1), (2, 1500, 9), (70_001, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["backward", "parameter_backward"])
def test_large_shapes(kernels, kind, shape):
    outer, channels, inner = shape
    numbers, tensors = numbers_of("swish", channels), inputs_of(kind, outer * channels * inner, torch.bfloat16)
    check(kernels.run("swish", kind, tensors, numbers, inner=inner), kind, tensors, "swish", numbers, inner)


@pytest.mark.parametrize("shape", [(1, 1, 30_011), (300, 3, 49), (1100, 24, 1), (2, 300, 16), (9, 1030, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SOME[1:])
def test_order_of_threads(kernels, name, dtype, shape):
    """Sums are bit for bit the same, and right: nothing is read before it is there, or written too early."""
    outer, channels, inner = shape
    numbers, kind = numbers_of(name, channels), "parameter_backward"
    tensors, results = inputs_of(kind, outer * channels * inner, dtype), []
    for order, seed in ORDERS:
        memory = kernels.run(name, kind, tensors, numbers, inner=inner, order=order, seed=seed)
        check(memory, kind, tensors, name, numbers, inner)
        results.append([m.tensor for k, m in memory.items() if k == "out" or k.startswith("parameter_grad")])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def accesses(elements, item, width):
    """Of so many elements, in pieces of ``width`` bytes as far as there are whole ones."""
    whole = elements * item // width
    rest = elements - whole * width // item
    return {w: n for w, n in ((width, whole), (item, rest)) if n}


# Bytes per element of the input, in units of its size.
READ_AND_WRITTEN = {"forward": (1, 1), "backward": (2, 1), "double_backward": (3, 2), "parameter_backward": (2, 1)}


def check_accesses(memory, kind, width):
    """Every input read once, every output written once, nothing else; in pieces of ``width`` bytes, but for tails."""
    tensors = [memory[k] for names in PASSES[kind] for k in names]
    x = memory["input"].tensor
    wanted = accesses(x.numel(), x.element_size(), width)
    for k in PASSES[kind][0]:
        assert memory[k].counts == {"loads": wanted, "stores": {}}, k
    for k in PASSES[kind][1]:
        assert memory[k].counts == {"loads": {}, "stores": wanted}, k
    moved = [sum(w * n for m in tensors for w, n in m.counts[way].items()) for way in ("loads", "stores")]
    assert moved == [units * x.numel() * x.element_size() for units in READ_AND_WRITTEN[kind]]


@pytest.mark.parametrize("size", [1, 128, 4096, 4099, 66_000])
@KINDS
@TYPES
@NAMES
def test_accesses(kernels, name, dtype, kind, size):
    skip_fixed(name, kind)
    check_accesses(kernels.run(name, kind, inputs_of(kind, size, dtype), numbers_of(name)), kind, 16)


@KINDS
@TYPES
@NAMES
def test_accesses_at_misaligned_addresses(kernels, name, dtype, kind):
    skip_fixed(name, kind)
    placed = inputs_of(kind, 4099, dtype)
    placed["input"] = Memory(placed["input"], 1)
    check_accesses(kernels.run(name, kind, placed, numbers_of(name)), kind, dtype.itemsize)


@pytest.mark.parametrize(
    ("shape", "whole"),
    [((37, 24, 64), True), ((37, 24, 1), True), ((5, 3, 4096), True), ((3, 8, 49), False), ((37, 3, 1), False)],
    ids=str,
)
@KINDS
@TYPES
@pytest.mark.parametrize("name", SOME[1:])
def test_accesses_with_channels(kernels, name, dtype, kind, shape, whole):
    """Whole rows of 16 bytes are read as such; others element for element."""
    outer, channels, inner = shape
    tensors = inputs_of(kind, outer * channels * inner, dtype)
    memory = kernels.run(name, kind, tensors, numbers_of(name, channels), inner=inner)
    check_accesses(memory, kind, 16 if whole else dtype.itemsize)
