"""Winograd's convolutions against float64.

Transformations take differences of numbers that are up to 100 times the result's: float32 results are off by up to 2e-5
of the largest one, ten times as far as a direct convolution's; those in bfloat16 by their own rounding.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import needs_extension
from torch.library import opcheck

from sat_kernels.attacks.engine import winograd
from sat_kernels.attacks.engine.winograd import WinogradConv2d

pytestmark = needs_extension

OPERATORS = torch.ops.sat_kernels
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-3}


def sample(shape, filters, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(filters, shape[1], 3, 3, generator=generator).to(dtype)
    return x, weight, torch.randn(filters, generator=generator)


def poisoned(*shape):
    """Memory of that size, which is likely to be handed out next, full of NaN."""
    torch.full(shape, float("nan"))


def check(found, wanted):
    assert found.shape == wanted.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found.double() - wanted).abs().max() <= TOLERANCE[found.dtype] * wanted.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 4),
    channels=st.sampled_from([32, 64, 96]),
    filters=st.sampled_from([32, 64, 96]),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_any_shape(dtype, samples, channels, filters, size, padding, bias, layout):
    size = [max(n, 3 - 2 * p) for n, p in zip(size, padding, strict=True)]
    x, weight, shift = sample((samples, channels, *size), filters, dtype)
    convolution = WinogradConv2d(weight.contiguous(memory_format=layout), padding)
    wanted = F.conv2d(x.double(), weight.double(), shift.double() if bias else None, padding=padding)
    poisoned(*wanted.shape)
    y = convolution.forward(x, shift if bias else None)
    check(y, wanted)
    grad = torch.randn_like(y)
    wanted = torch.nn.grad.conv2d_input(x.shape, weight.double(), grad.double(), padding=padding)
    poisoned(*wanted.shape)
    check(convolution.input_gradient(x.shape, grad), wanted)
    check(convolution.input_gradient(x.shape, grad.contiguous()), wanted)


@pytest.mark.parametrize(("samples", "channels", "size"), [(40, 64, 32), (64, 256, 8), (64, 512, 4)])
def test_exact_of_several_blocks(samples, channels, size):
    """More tiles than are transformed at once, with small weights and with large ones."""
    x, weight, bias = sample((samples, channels, size, size), 512 if channels == 512 else 64)
    weight /= 3 * channels**0.5
    check(
        WinogradConv2d(weight, (1, 1)).forward(x, bias), F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    )


def test_exact_of_impulses():
    """One element of the image and one of a filter: each place of a tile, each tap."""
    _, weight, _ = sample((1, 32, 7, 7), 32)
    wanted_places = [(y, c) for y in range(7) for c in range(7)]
    for tap in range(9):
        weight.zero_()
        weight[3, 5, tap // 3, tap % 3] = 2.0
        convolution = WinogradConv2d(weight, (1, 1))
        images = torch.zeros(49, 32, 7, 7).contiguous(memory_format=torch.channels_last)
        for image, (y, column) in enumerate(wanted_places):
            images[image, 5, y, column] = 1.0
        torch.testing.assert_close(
            convolution.forward(images, None), F.conv2d(images, weight, padding=1), rtol=0, atol=4e-6
        )


def test_new_weights():
    x, weight, _ = sample((1, 32, 6, 6), 32)
    convolution = WinogradConv2d(weight, (1, 1))
    before = convolution.forward(x, None)
    weight.mul_(2)
    assert torch.equal(convolution.forward(x, None), before)
    convolution.changed()
    assert torch.equal(convolution.forward(x, None), 2 * before)


def test_threads_make_no_difference():
    x, weight, bias = sample((16, 64, 16, 16), 96)
    convolution, threads = WinogradConv2d(weight, (1, 1)), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(convolution.forward(x, bias))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


def test_opcheck():
    x, weight, bias = sample((2, 32, 5, 6), 64)
    taken, weight = torch.empty(36 * 64 * 32), weight.contiguous(memory_format=torch.channels_last)
    opcheck(OPERATORS.winograd_weight_.default, (taken, weight, False))
    OPERATORS.winograd_weight_(taken, weight, False)
    opcheck(OPERATORS.winograd_conv2d.default, (x, taken, bias, 1, 0))
    opcheck(OPERATORS.winograd_conv2d.default, (x[:0], taken, None, 0, 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": torch.zeros(2, 32, 5, 5)}, "x: expected channels_last"),
        ({"x": torch.zeros(2, 31, 5, 1)}, "x: expected a number of channels that is a multiple of"),
        ({"x": torch.zeros(2, 32, 5, 1, dtype=torch.float64)}, "x: expected float32 or bfloat16"),
        ({"x": torch.zeros(2, 32, 5)}, "x: expected .samples"),
        ({"padding_y": -1}, "padding: expected numbers >= 0"),
        ({"x": torch.zeros(2, 32, 5, 1), "padding_x": 0}, "x at least as large as a filter"),
        ({"weight": torch.zeros(36 * 32 * 32, dtype=torch.float64)}, "weight: expected what winograd_weight_"),
        ({"weight": torch.zeros(36 * 32 * 32 + 1)}, "weight: expected what winograd_weight_"),
        ({"bias": torch.zeros(33)}, "bias: expected a contiguous float32 tensor"),
    ],
)
def test_errors(changes, said):
    x, _, bias = sample((2, 32, 5, 5), 32)
    taken = {"x": x, "weight": torch.zeros(36 * 32 * 32), "bias": bias, "padding_y": 1, "padding_x": 1} | changes
    if "channels_last" not in said and taken["x"].dim() == 4:
        taken["x"] = taken["x"].contiguous(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match=said):
        OPERATORS.winograd_conv2d(*taken.values())


@pytest.mark.parametrize(
    ("out", "weight", "said"),
    [
        (torch.zeros(36 * 32 * 32), torch.zeros(32, 32, 3, 3, dtype=torch.float64), "weight: expected float32 or"),
        (torch.zeros(36 * 32 * 32), torch.zeros(32, 32, 5, 5), "weight: expected .filters, channels, 3, 3. in"),
        (torch.zeros(36 * 32 * 31), torch.zeros(31, 32, 3, 3), "multiples of"),
        (torch.zeros(36 * 32 * 31), torch.zeros(32, 31, 3, 3), "multiples of"),
        (torch.zeros(9 * 32 * 32), torch.zeros(32, 32, 3, 3), "out: expected a contiguous float32 tensor"),
    ],
)
def test_errors_of_weights(out, weight, said):
    with pytest.raises(RuntimeError, match=said):
        OPERATORS.winograd_weight_(out, weight.contiguous(memory_format=torch.channels_last), False)
    with pytest.raises(RuntimeError, match=r"channels_last memory"):
        OPERATORS.winograd_weight_(torch.zeros(36 * 32 * 32), torch.zeros(32, 32, 3, 3), False)


def test_what_is_taken():
    def takes(
        shape=(32, 64, 8, 8),
        filters=64,
        dtype=torch.float32,
        padding=(1, 1),
        kernel=3,
        layout=torch.channels_last,
        **how,
    ):
        x = torch.empty(shape, dtype=dtype).contiguous(memory_format=layout)
        return winograd.takes(x, torch.empty(filters, shape[1], kernel, kernel), padding=padding, **how)

    assert takes()
    assert takes(shape=(32, 512, 4, 4), filters=512)
    assert not takes(kernel=1)
    assert not takes(filters=10)
    assert not takes(shape=(32, 3, 32, 32))
    assert not takes(dtype=torch.float64)
    assert not takes(layout=torch.contiguous_format)
    assert not takes(padding=(3, 3))
    assert not takes(stride=(2, 2))
    assert not takes(dilation=(2, 2))
    assert not takes(groups=2)
    assert not takes(shape=(2, 64, 4, 4))  # two tiles
    assert not takes(shape=(64, 64, 2, 2))  # a quarter of a tile
    assert not takes(shape=(64, 64, 2, 2), padding=(0, 0))  # nothing
    assert not takes(shape=(0, 64, 8, 8))
