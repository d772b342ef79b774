"""The activations' raw kernels at every number of the 16-bit types."""

import pytest
import torch
from raw import LEARNABLE, needs_extension, rounded, run, slopes
from targets import slope_tolerance
from textbook import CASES, IDS, KINKED, derivative64, largest_second, ulps

TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
LEARNED = [pytest.param(*case, id=id) for case, id in zip(CASES, IDS, strict=True) if case[0] in LEARNABLE]


def every_number(dtype):
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@needs_extension
@pytest.mark.parametrize("order", [0, 1, 2])
@TYPES
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
def test_every_16_bit_input(name, numbers, dtype, order):
    x = every_number(dtype)
    found, numbers = run(name, numbers, x, order), rounded(numbers, dtype)
    assert found[x.isnan()].isnan().all()
    assert not found[~x.isnan()].isnan().any()
    kept = x.isfinite() & (x.double().abs() < 1e15)  # beyond: test_limits
    if name in KINKED and order > 0:
        kept &= x != 0
    x, found = x[kept].double(), found[kept].double()
    expected = derivative64(name, numbers, x, order)
    slack = {1: 3e-7, 2: 6e-7 * largest_second(name, numbers)}.get(order, 0.0)
    if name == "pssilu" and order == 0:  # it has a zero away from 0
        slack = 4e-7 * x.abs().clamp(min=1)
    bad = (found - expected).abs() > ulps(expected, dtype) + slack
    bad &= expected.abs() <= torch.finfo(dtype).max
    assert not bad.any(), f"{int(bad.sum())} inputs: {x[bad][:3]}: {found[bad][:3]} instead of {expected[bad][:3]}"


@needs_extension
@TYPES
@pytest.mark.parametrize(("name", "numbers"), LEARNED)
def test_every_term_of_parameter_gradients(name, numbers, dtype):
    """They are float32, as if the input were: compared with the float64 kernel."""
    x = every_number(dtype)
    kept = x.isfinite() & (x.double().abs() < 1e15)
    found = slopes(name, numbers, x)
    for k, (term, expected) in enumerate(zip(found, slopes(name, rounded(numbers, dtype), x.double()), strict=True)):
        assert term.dtype == torch.float32
        assert term[x.isnan()].isnan().all()
        assert not term[~x.isnan()].isnan().any()
        term, expected, at = term[kept].double(), expected[kept], x[kept].double()
        bad = (term - expected).abs() > slope_tolerance(name, numbers, k, at, torch.float32, expected)
        assert not bad.any(), f"{int(bad.sum())} inputs: {at[bad][:3]}: {term[bad][:3]} for {expected[bad][:3]}"
