"""The kernels against the activations' definitions: hard points in many digits, and every number of 16 bits."""

import math

import pytest
import torch
from accuracy import slopes_at_infinity, wrong_16_bit, wrong_hard_points, wrong_slopes
from raw import LEARNABLE, every_number, rounded, run, slopes
from targets import slope_tolerance
from textbook import CASES, IDS

WIDE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
NARROW = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
EVERY = pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
LEARNED = [pytest.param(*case, id=id) for case, id in zip(CASES, IDS, strict=True) if case[0] in LEARNABLE]


@pytest.mark.parametrize("order", [0, 1, 2])
@WIDE
@EVERY
def test_hard_points(name, numbers, dtype, order, device):
    wrong = wrong_hard_points(name, numbers, dtype, order, device)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("order", [0, 1, 2])
@NARROW
@EVERY
def test_every_16_bit_input(name, numbers, dtype, order, device):
    wrong = wrong_16_bit(name, numbers, dtype, order, device)
    assert not wrong, f"{len(wrong)} inputs, of which\n" + "\n".join(wrong[:5])


@WIDE
@pytest.mark.parametrize(("name", "numbers"), LEARNED)
def test_hard_points_of_slopes(name, numbers, dtype, device):
    wrong = wrong_slopes(name, numbers, dtype, device)
    assert not wrong, "\n".join(wrong)


@NARROW
@pytest.mark.parametrize(("name", "numbers"), LEARNED)
def test_every_16_bit_slope(name, numbers, dtype, device):
    """They are float32, as if the input were: compared with the float64 kernel."""
    x = every_number(dtype)
    kept = x.isfinite() & (x.double().abs() < 1e15)
    found = slopes(name, numbers, x.to(device))
    exact = slopes(name, rounded(numbers, dtype), x.double().to(device))
    for k, (terms, expected) in enumerate(zip(found, exact, strict=True)):
        assert terms.dtype == torch.float32
        terms, expected = terms.cpu(), expected.cpu()
        assert (terms.isnan() == x.isnan()).all()
        limits = slope_tolerance(name, numbers, k, x[kept].double(), torch.float32, expected[kept])
        assert ((terms[kept].double() - expected[kept]).abs() <= limits).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@EVERY
def test_limits(name, numbers, dtype, device):
    """NaN stays NaN; far out every activation is a line."""
    far = [torch.finfo(dtype).max, math.inf]
    x = torch.tensor([math.nan, *(-v for v in far), *far], dtype=dtype)
    found = [run(name, numbers, x.to(device), order).double().cpu() for order in range(3)]
    assert all(f[0].isnan() for f in found)
    values, first, second = (f[1:].tolist() for f in found)
    slopes_ = [s for s in slopes_at_infinity(name, numbers) for _ in far]
    flat = -numbers[0] if name in ("elu", "celu") else 0.0
    expected = [flat if slope == 0 else slope * point for slope, point in zip(slopes_, x[1:].tolist(), strict=True)]
    eps = torch.finfo(dtype).eps
    # The largest float16 is no further out than 65504, where Squareplus is still 1.5e-5.
    assert values == pytest.approx(expected, rel=max(2 * eps, 1e-6), abs=2e-5)
    assert first == pytest.approx(slopes_, rel=max(2 * eps, 1e-6), abs=1e-7)
    assert max(map(abs, second)) < 1e-12
