"""The activations' raw kernels against their definitions."""

import math

import pytest
import torch
from accuracy import HARD, slopes_at_infinity, wrong_hard_points
from raw import needs_extension, rounded, run
from targets import tolerance
from textbook import CASES, IDS, derivative64, exact, largest_second

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.functional import gelu, silu


@needs_extension
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
def test_hard_points(name, numbers, dtype, order):
    wrong = wrong_hard_points(name, numbers, dtype, order)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
def test_definitions_agree(name, numbers, order):
    """Those in float64, which stand for the exact ones where there are many points."""
    x = torch.tensor([v for v in HARD if 0 < abs(v) < 1e3 and v not in (20, -20, 8, -8)], dtype=torch.float64)
    expected = torch.tensor([exact(name, numbers, point)[order] for point in x.tolist()], dtype=torch.float64)
    scale = 1.0 if order < 2 else largest_second(name, numbers)
    torch.testing.assert_close(derivative64(name, numbers, x, order), expected, rtol=1e-11, atol=1e-11 * scale)


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
def test_limits(name, numbers, dtype):
    far = [1e20, 1e30, torch.finfo(dtype).max, math.inf]
    x = torch.tensor([math.nan, *(-v for v in far), *far], dtype=dtype)
    found = [run(name, numbers, x, order) for order in range(3)]
    assert all(f[0].isnan() for f in found)
    values, first, second = (f[1:].tolist() for f in found)
    slopes = [s for s in slopes_at_infinity(name, numbers) for _ in far]
    flat = -numbers[0] if name in ("elu", "celu") else 0.0
    expected = [flat if slope == 0 else slope * point for slope, point in zip(slopes, x[1:].tolist(), strict=True)]
    assert values == pytest.approx(expected, rel=1e-6, abs=1e-20)
    assert first == pytest.approx(slopes, rel=1e-6, abs=1e-20)
    assert max(map(abs, second)) < 1e-20


UNUSUAL = [
    ("swish", (0.0,)),
    ("swish", (1e-3,)),
    ("swish", (1e30,)),
    ("softplus", (0.1, -1.0)),
    ("softplus", (10.0, 1e30)),
    ("parametric_softplus", (1e-3,)),
    ("parametric_softplus", (1e4,)),
    ("elu", (-0.5,)),
    ("elu", (0.0,)),
    ("celu", (-2.0,)),
    ("celu", (1e3,)),
    ("smooth_relu", (1e-3,)),
    ("smooth_relu", (1e6,)),
    ("squareplus", (1e-6,)),
    ("squareplus", (1e6,)),
    ("smu", (1.0, 1e6)),
    ("smu", (-0.5, 1.3)),
    ("smu", (2.0, 0.7)),
    ("smu", (0.25, -1.3)),
    ("smu", (0.25, 0.0)),
    ("pssilu", (1.0, 0.0)),
    ("pssilu", (0.01, 0.99)),
    ("relu_smooth_backward", (1e-3,)),
]


@needs_extension
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(("name", "numbers"), UNUSUAL, ids=[f"{name}{numbers}" for name, numbers in UNUSUAL])
def test_unusual_parameters(name, numbers, order):
    """Every one that is allowed; not to the last digit, which the targets are for."""
    points = [-11.0, -3.0, -0.7, -1e-3, -1e-8, 1e-8, 1e-3, 0.7, 3.0, 11.0]
    found = run(name, numbers, torch.tensor(points, dtype=torch.float64), order).tolist()
    expected = [exact(name, numbers, point)[order] for point in points]
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-13 * max(map(abs, expected)))
    rough = run(name, numbers, torch.tensor(points), order).tolist()
    assert rough == pytest.approx(expected, rel=1e-4, abs=1e-6 * max(map(abs, expected)) + 1e-30)


@needs_extension
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_kinks(zero):
    x = torch.tensor([zero])
    assert [run("elu", (1.7,), x, order).item() for order in (1, 2)] == pytest.approx([1.7, 0.0])  # as ATen
    assert [run("celu", (0.5,), x, order).item() for order in (1, 2)] == [1.0, 0.0]
    assert [run("smooth_relu", (400.0,), x, order).item() for order in (0, 1, 2)] == [0.0, 0.0, 0.0]


@needs_extension
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_wrong_formula_would_be_seen(name):
    """The checks above can fail: no tolerance takes a formula that is wrong by 2e-6, in float64 by 1e-14.

    f'' of ReLU-like ones is small there and left out.
    """
    # Where f, f' and f'' are far from 0.
    point = {"elu": -0.5, "celu": -0.5, "smooth_relu": 0.002, "smu": 2e-7, "relu_smooth_backward": 0.1}.get(name, 0.4)
    for dtype, error in ((torch.float32, 2e-6), (torch.float64, 1e-14)):
        numbers = rounded(ACTIVATIONS[name].defaults, dtype)
        for order, value in enumerate(exact(name, numbers, point)):
            if order == 0 or abs(value) > 0.2:
                assert abs(value) * error > tolerance(name, numbers, point, dtype, order, value)


def test_the_two_forms_of_gelu_differ():
    x = torch.tensor([1.0], dtype=torch.float64)
    difference = (gelu(x) - gelu(x, approximate="tanh")).abs().item()
    assert difference > tolerance("gelu", (), 1.0, torch.float64, 0, 0.84) * 1e6
    assert silu(x).item() == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-15)
