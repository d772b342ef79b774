"""More than 2^31 elements: what a 32-bit index gets wrong. All results are compared, part by part, with short calls.

On the CPU the same lines run on a short tensor.
"""

import itertools

import pytest
import torch
from accuracy import NUMBERS
from raw import LEARNABLE, operator, tensors

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import pgd_step_

# No multiple of a vector or a block.
BEYOND = 2**31 + 1027


def elements(device):
    return BEYOND if device.type == "cuda" else 70_001


def parts(size):
    """Short ones, one of them across 2^31."""
    part = 2**28 if size > 2**31 else 2**14
    edges = [0, *range(part // 2, size, part), size]
    return itertools.pairwise(edges)


def filled(size, device, dtype, seed):
    """Different everywhere: a kernel that wraps round would repeat itself."""
    torch.manual_seed(seed)
    x = torch.empty(size, dtype=dtype, device=device)
    for start, end in parts(size):
        x[start:end].normal_()
    return x


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, device, room):
    room(24)
    size, parameters = elements(device), tensors(name, NUMBERS[name], device=device)
    x, grad = (filled(size, device, torch.bfloat16, seed) for seed in (1, 2))
    for call, arguments in ((name, (x,)), (f"{name}_backward", (grad, x))):
        found = operator(call)(*arguments, *parameters)
        for start, end in parts(size):
            part = operator(call)(*(a[start:end].clone() for a in arguments), *parameters)
            assert torch.equal(found[start:end], part), f"{call} between {start} and {end}"
        del found
    if name == "silu":
        found = operator(f"{name}_double_backward")(grad, grad, x, *parameters)
        for start, end in parts(size):
            part = operator(f"{name}_double_backward")(*(a[start:end].clone() for a in (grad, grad, x)), *parameters)
            assert all(torch.equal(f[start:end], p) for f, p in zip(found, part, strict=True))
        del found
        operator(f"{name}_")(x)
        last = slice(-1000, None)
        original = filled(size, device, torch.bfloat16, 1)
        assert torch.equal(x[last], operator(name)(original[last].clone()))


@pytest.mark.parametrize("layout", ["one parameter", "NCHW", "channels_last"])
@pytest.mark.parametrize("name", LEARNABLE[:2])
def test_gradients_of_parameters(name, layout, device, room):
    room(30)
    channels, side = (3, 16_384) if device.type == "cuda" else (3, 64)
    samples = elements(device) // (channels * side * side) + 1
    x, grad = (filled(samples * channels * side * side, device, torch.bfloat16, seed) for seed in (1, 2))
    shape = (samples, channels, side, side) if layout == "NCHW" else (samples, side, side, channels)
    x, grad = (t.view(shape) if layout == "NCHW" else t.view(shape).permute(0, 3, 1, 2) for t in (x, grad))
    assert device.type == "cpu" or x.numel() > 2**31
    parameters = tensors(name, NUMBERS[name], channels=1 if layout == "one parameter" else channels, device=device)
    found, *sums = operator(f"{name}_parameter_backward")(grad, x, *parameters)
    totals = [torch.zeros_like(s, dtype=torch.float64) for s in sums]
    for sample in range(samples):
        part = (t[sample, None].clone() for t in (grad, x))
        one, *terms = operator(f"{name}_parameter_backward")(*part, *parameters)
        assert torch.equal(found[sample, None], one), f"sample {sample}"
        for total, term in zip(totals, terms, strict=True):
            total += term
    for total, found in zip(totals, sums, strict=True):
        # Terms are of size 1; a part that is left out or taken twice adds up to the root of its 2^27 elements or more.
        assert ((found.double() - total).abs() <= 1e-6 * x.numel() / total.numel() + 1e-3).all()


@pytest.mark.parametrize("per_sample", [False, True])
def test_step(per_sample, device, room):
    room(45)
    size = elements(device)
    size -= size % 3
    x, x_adv = (torch.empty(size, device=device) for _ in range(2))
    for start, end in parts(size):
        x[start:end].uniform_()
        x_adv[start:end] = (x[start:end] + 0.1).clamp(max=1)
    grad, original = filled(size, device, torch.bfloat16, 1), x_adv.clone()
    eps = torch.tensor([0.02, 0.03, 0.05], device=device)
    shape = (3, size // 3) if per_sample else (1, size)
    pgd_step_(x_adv.view(shape), grad.view(shape), x.view(shape), eps=eps if per_sample else 0.03, alpha=0.01)
    for start, end in parts(size):
        part, radius = slice(start, end), 0.03
        if per_sample:
            radius = eps[torch.arange(start, end, device=device) // (size // 3)]
        # Each pixel is a sample of its own: the same arithmetic without a long index.
        rows = (end - start, 1) if per_sample else (1, end - start)
        expected = original[part].clone().view(rows)
        pgd_step_(expected, grad[part].clone().view(rows), x[part].clone().view(rows), eps=radius, alpha=0.01)
        assert torch.equal(x_adv[part], expected.flatten()), f"between {start} and {end}"
