"""Learnable parameters: one for all or one per channel, their gradients, and that these are the same every time."""

import pytest
import torch
from accuracy import assert_every_pass_agrees, assert_sums_agree
from raw import LEARNABLE, computed_in, operator

from sat_kernels.activations import ACTIVATIONS

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
EVERY = pytest.mark.parametrize("name", LEARNABLE)
# Dimension 1 is that of the channels; how many elements of one lie side by side decides how a kernel goes through them.
INPUTS = {
    "NCHW": lambda r: r(5, 24, 31, 28),
    "NCHW, odd": lambda r: r(5, 23, 31, 27),
    "NCHW, rows of 4": lambda r: r(300, 24, 2, 2),
    "channels_last": lambda r: r(5, 24, 31, 28).to(memory_format=torch.channels_last),
    "channels_last, odd": lambda r: r(5, 23, 31, 27).to(memory_format=torch.channels_last),
    "NC": lambda r: r(3001, 24),
    "NC, odd": lambda r: r(3001, 23),
    "NCL, misaligned": lambda r: r(1 + 7 * 24 * 101)[1:].reshape(7, 24, 101),
    "sliced": lambda r: r(7, 48, 33, 35)[:, ::2, :, 1:],
    "one row": lambda r: r(1, 3, 100_003),
    "many channels": lambda r: r(2, 40_003),
    "few large ones": lambda r: r(2, 2, 700, 701),
}


def made(name, channels, dtype, device):
    """The parameters of so many channels, all different and in every domain."""
    first = torch.linspace(2.5, 0.5, channels)
    both = [first, torch.linspace(0.1, 0.7, channels)][: len(ACTIVATIONS[name].parameters)]
    return tuple(p.to(device, computed_in(dtype)) for p in both)


@pytest.mark.parametrize("layout", INPUTS)
@DTYPES
@EVERY
def test_per_channel(name, dtype, layout, device):
    x, grad, other = (INPUTS[layout](lambda *s: torch.randn(s, device=device).to(dtype)) for _ in range(3))
    parameters = made(name, x.shape[1], dtype, device)
    spread = tuple(p.double().reshape(-1, *[1] * (x.ndim - 2)) for p in parameters)
    assert_every_pass_agrees(name, spread, parameters, x, grad, other, layout)
    assert_sums_agree(name, parameters, x, grad, layout)


@pytest.mark.parametrize("layout", ["NCHW", "channels_last, odd", "NC", "one row"])
@DTYPES
@EVERY
def test_one_for_all(name, dtype, layout, device):
    x, grad = (INPUTS[layout](lambda *s: torch.randn(s, device=device).to(dtype)) for _ in range(2))
    assert_sums_agree(name, made(name, 1, dtype, device), x, grad, layout)


@pytest.mark.parametrize("layout", ["NCHW", "channels_last", "NC", "few large ones"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@EVERY
def test_sums_are_the_same_every_time(name, dtype, layout, device):
    x, grad = (INPUTS[layout](lambda *s: torch.randn(s, device=device).to(dtype)) for _ in range(2))
    for channels in (1, x.shape[1]):
        parameters = made(name, channels, dtype, device)
        first = operator(f"{name}_parameter_backward")(grad, x, *parameters)
        # With other allocations and other work in between.
        for repetition in range(10):
            torch.randn(1000 + 77 * repetition, device=device).sort()
            again = operator(f"{name}_parameter_backward")(grad.clone(), x.clone(), *parameters)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@EVERY
def test_empty_inputs_give_zeros(name, device):
    for shape, channels in (((0,), 1), ((0, 5), 5), ((2, 5, 0), 5), ((2, 0), 1)):
        x, parameters = torch.randn(shape, device=device), made(name, channels, torch.float32, device)
        grad_x, *found = operator(f"{name}_parameter_backward")(x, x, *parameters)
        assert grad_x.shape == x.shape
        assert [f.tolist() for f in found] == [[0.0] * channels] * len(parameters)
