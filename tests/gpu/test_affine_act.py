"""What follows a convolution: the CPU's results, on every path that the kernels have."""

import math

import pytest
import torch

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import affine_act_

# Triton compiles a kernel for every case: not all of them in all types.
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
MAIN_TYPES = pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# Whole planes, those that end within an access, one in several; channels that fill accesses, and not.
SHAPES = [(3, 16, 8, 8), (2, 8, 7, 7), (3, 6, 14, 14), (5, 3, 2, 3), (2, 64, 5, 5), (1, 1, 33, 31)]


def case(shape, dtype, layout=torch.contiguous_format):
    """input, residual, and the gradients at the result and at the sum; and what belongs to channels."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    tensors = [torch.randn(shape).to(dtype) for _ in range(4)]
    if len(shape) == 4:
        tensors = [t.contiguous(memory_format=layout) for t in tensors]
    return tensors, {k: torch.rand(shape[1], dtype=wide) * 2 - 0.5 for k in ("bias", "scale", "shift")}


def run(tensors, vectors, name, device="cpu", residual=True):
    """The sum, the result and the gradient."""
    x, addend, grad, grad_sum = (t.to(device, copy=True) for t in tensors)
    x.requires_grad_()
    total = x * 1
    vectors = {k: v.to(device) for k, v in vectors.items()}
    y = affine_act_(total, activation=name, residual=addend if residual else None, **vectors)
    torch.autograd.backward([y, total], [grad, grad_sum])
    return total.detach(), y.detach(), x.grad


def close(found, wanted):
    tolerance = 1e-12 if wanted.dtype == torch.float64 else max(4 * torch.finfo(wanted.dtype).eps, 2e-5)
    assert found.stride() == wanted.stride()
    torch.testing.assert_close(found.cpu(), wanted, rtol=tolerance, atol=tolerance)


def compare(tensors, vectors, name, device, **options):
    found, wanted = (run(tensors, vectors, name, d, **options) for d in (device, "cpu"))
    assert torch.equal(found[0].cpu(), wanted[0])
    close(found[1], wanted[1])
    close(found[2], wanted[2])


@MAIN_TYPES
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name, dtype, device):
    compare(*case((2, 5, 1030), dtype), name, device)


@TYPES
def test_types(dtype, device):
    for shape in ((2, 5, 1030), (2, 8, 64)):
        compare(*case(shape, dtype), "silu", device)


@pytest.mark.parametrize("layout", LAYOUTS)
@MAIN_TYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layouts(shape, dtype, layout, device):
    compare(*case(shape, dtype, LAYOUTS[layout]), "silu", device)


@pytest.mark.parametrize("shape", [(2, 8, 64), (2, 8, 49), (6, 64)], ids=str)
def test_each_option(shape, device):
    given, vectors = case(shape, torch.bfloat16)
    for k in vectors:
        compare(given, {k: vectors[k]}, "gelu", device, residual=False)
    compare(given, {}, "gelu", device)
    compare(given, {}, "gelu", device, residual=False)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES[:2] + SHAPES[3:5], ids=str)
def test_parameters_of_channels(shape, layout, device):
    given, vectors = case(shape, torch.float32, LAYOUTS[layout])
    betas = torch.linspace(0.5, 1.5, shape[1])
    found, wanted = (run(given, vectors, ("swish", betas.to(d)), d) for d in (device, "cpu"))
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours, theirs)


@MAIN_TYPES
def test_odd_addresses(dtype, device):
    """Of tensors, which then are read element for element, and of what belongs to channels."""
    given, vectors = case((3, 8, 16), dtype)
    wanted = run(given, vectors, "mish")
    for which in ("tensors", "vectors"):
        moved, numbers = given, {k: v.to(device) for k, v in vectors.items()}
        if which == "tensors":
            total = torch.empty(given[0].numel() + 1, dtype=dtype, device=device)[1:].view(given[0].shape)
        else:
            total = torch.empty(given[0].shape, dtype=dtype, device=device)
            numbers = {k: torch.cat([v[:1], v])[1:] for k, v in numbers.items()}
        total.copy_(given[0])
        y = affine_act_(total, activation="mish", residual=moved[1].to(device), **numbers)
        assert torch.equal(total.cpu(), wanted[0])
        close(y, wanted[1])


def test_graph_capture(cuda):
    """No call waits for the device."""
    tensors, vectors = case((2, 8, 7, 7), torch.bfloat16, torch.channels_last)
    x, addend, grad, _ = (t.to(cuda) for t in tensors)
    vectors = {k: v.to(cuda) for k, v in vectors.items()}
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()

    def passes():
        y = affine_act_(leaf * 1, activation="silu", residual=addend, **vectors)
        return y, torch.autograd.grad(y, leaf, grad)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        wanted = [t.clone() for t in passes()]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = passes()
    for t in found:
        t.detach().fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(ours.detach(), theirs.detach()) for ours, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize("shape", [(24,), (24, 9)], ids=["NHWC", "NCHW"])
def test_more_elements_than_32_bits_count(shape, room, device):
    """Each end is as it is alone. On the CPU the same lines run on a short tensor."""
    room(40)
    outer = (2**32 if device.type == "cuda" else 2**16) // math.prod(shape) + 3
    x, residual = (torch.empty(outer, *shape, dtype=torch.bfloat16, device=device).normal_() for _ in range(2))
    vectors = {k: torch.rand(24, device=device) for k in ("bias", "scale", "shift")}
    ends = [slice(0, 500), slice(-500, None)]
    parts = [(x[end].clone(), residual[end].clone()) for end in ends]
    y = affine_act_(x, activation="silu", residual=residual, **vectors)
    backward = torch.ops.sat_kernels.affine_act_backward
    silu = (vectors["scale"], vectors["shift"], "silu", 0.0, 0.0, None, None)
    grad = backward(residual, x, y, *silu)
    for end, (part, addend) in zip(ends, parts, strict=True):
        value = affine_act_(part, activation="silu", residual=addend, **vectors)
        assert torch.equal(x[end], part)
        assert torch.equal(y[end], value)
        assert torch.equal(grad[end], backward(addend, part, value, *silu))
