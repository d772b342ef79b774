"""The activations' raw kernels at every number of the 16-bit types."""

import pytest
import torch
from accuracy import wrong_16_bit
from raw import LEARNABLE, every_number, needs_extension, rounded, slopes
from targets import slope_tolerance
from textbook import CASES, IDS

TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
LEARNED = [pytest.param(*case, id=id) for case, id in zip(CASES, IDS, strict=True) if case[0] in LEARNABLE]


@needs_extension
@pytest.mark.parametrize("order", [0, 1, 2])
@TYPES
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
def test_every_16_bit_input(name, numbers, dtype, order):
    wrong = wrong_16_bit(name, numbers, dtype, order)
    assert not wrong, f"{len(wrong)} inputs, of which\n" + "\n".join(wrong[:5])


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
