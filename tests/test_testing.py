"""check_feasible against rational arithmetic."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sat_kernels.testing import FeasibilityReport, check_feasible

FLOATS = (torch.float32, torch.float64, torch.bfloat16)


def oracle(x_adv, x, eps, norm, low, high):
    """Violations in (B, N) lists of finite numbers."""
    pixels = [
        [(Fraction(a), Fraction(b), Fraction(low) <= Fraction(a) <= Fraction(high)) for a, b in zip(*rows, strict=True)]
        for rows in zip(x_adv, x, strict=True)
    ]
    radii = [Fraction(e) for e in eps]
    outside_box = sum(not inside for row in pixels for _, _, inside in row)
    if norm == "Linf":
        return sum(not i or abs(a - b) > e for row, e in zip(pixels, radii, strict=True) for a, b, i in row)
    power = 2 if norm == "L2" else 1
    too_far = sum(sum(abs(a - b) ** power for a, b, _ in row) > e**power for row, e in zip(pixels, radii, strict=True))
    return outside_box + too_far


def next_to(value, dtype, to):
    return torch.nextafter(torch.tensor(value, dtype=dtype), torch.tensor(to, dtype=dtype)).item()


magnitudes = st.one_of(
    st.floats(-1, 2),
    st.sampled_from([0.0, -0.0, 1.0, 0.7, 0.3, 8 / 255, 0.5, 1e-40, 1e-310, 5e-324, 1e-200, 1e200, -1e200, 1e308]),
)


@st.composite
def cases(draw):
    dtype = draw(st.sampled_from(FLOATS))
    batch, size = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    finite = magnitudes if dtype == torch.float64 else magnitudes.filter(lambda v: abs(v) < 10)
    x = torch.tensor(draw(st.lists(finite, min_size=batch * size, max_size=batch * size)), dtype=dtype)
    eps = draw(st.lists(finite.map(abs), min_size=batch, max_size=batch))
    # Points that lie on the surface, up to rounding, or a few units beside it.
    x_adv = x.double().reshape(batch, size).clone()
    for row, radius in enumerate(eps):
        for column in range(size):
            share = draw(st.sampled_from([0.0, 1.0, 1.0, -1.0, 0.5, 0.6, 0.8, size**-0.5, 1 / size]))
            x_adv[row, column] += share * radius
    x_adv = x_adv.to(dtype)
    for _ in range(draw(st.integers(0, 2))):
        x_adv = torch.nextafter(x_adv, torch.full_like(x_adv, draw(st.sampled_from([-math.inf, math.inf]))))
    return x_adv.nan_to_num(), x.reshape(batch, size), eps, draw(st.sampled_from([(0.0, 1.0), (-1.0, 0.3)]))


@given(cases(), st.sampled_from(["Linf", "L2", "L1"]))
@settings(max_examples=300, deadline=None)
# Squares of these differences underflow or overflow in float64.
@example(
    (torch.tensor([[1e-200]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64), [1e-201], (0.0, 1.0)), "L2"
)
@example(
    (torch.tensor([[1e200]], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64), [2e200], (0.0, 1.0)), "L2"
)
# 3, 4, 5: exactly on the surface.
@example((torch.tensor([[0.375, 0.5]]), torch.zeros(1, 2), [0.625], (0.0, 1.0)), "L2")
def test_agrees_with_rational_arithmetic(case, norm):
    x_adv, x, eps, (low, high) = case
    report = check_feasible(x_adv, x, torch.tensor(eps, dtype=torch.float64), norm, low, high)
    assert report.violations == oracle(x_adv.tolist(), x.tolist(), eps, norm, low, high)
    assert (report.max_excess > 0) == (report.violations > 0)


def test_sees_one_unit_that_a_subtraction_rounds_away():
    # 1 - 2^-60 is 1 in float64.
    x = torch.tensor([2.0**-60], dtype=torch.float64)
    for x_adv, violations in ((1.0, 0), (next_to(1.0, torch.float64, 2.0), 1)):
        assert check_feasible(torch.tensor([x_adv], dtype=torch.float64), x, 1.0, clip_max=2.0).violations == violations
    x = torch.tensor([-(2.0**-60)], dtype=torch.float64)
    x_adv = torch.tensor([1.0], dtype=torch.float64)
    assert (x_adv - x).item() == 1.0
    report = check_feasible(x_adv, x, 1.0)
    assert report.violations == 1
    assert report.max_excess == 2.0**-60


# float32(0.3) is above 0.3 and float32(0.7) below 0.7.
@pytest.mark.parametrize(("eps", "subtraction"), [(0.3, "invents"), (0.7, "misses")])
def test_differs_from_a_float32_subtraction(eps, subtraction):
    generator = torch.Generator().manual_seed(0)
    # Small pixels have bits that the distance cannot hold.
    x = torch.rand(10000, generator=generator) ** 4
    x_adv = x + eps * torch.randn(10000, generator=generator).sign()
    exact = [abs(Fraction(a) - Fraction(b)) > Fraction(eps) for a, b in zip(x_adv.tolist(), x.tolist(), strict=True)]
    assert check_feasible(x_adv, x, eps, clip_min=-1.0, clip_max=2.0).violations == sum(exact)
    exact, rounded = torch.tensor(exact), (x_adv - x).abs().double() > eps
    assert (rounded & ~exact if subtraction == "invents" else exact & ~rounded).any()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sign", [1, -1])
def test_one_unit_over_each_bound(dtype, sign):
    x = torch.tensor([0.25], dtype=dtype)
    on_surface = 0.25 + sign * 0.125
    for x_adv, inside in (
        (on_surface, True),
        (next_to(on_surface, dtype, sign * math.inf), False),
        (next_to(on_surface, dtype, -sign * math.inf), True),
    ):
        assert (check_feasible(torch.tensor([x_adv], dtype=dtype), x, 0.125).violations == 0) == inside
    bound = 1.0 if sign > 0 else 0.0
    beyond = next_to(bound, dtype, sign * math.inf)
    assert check_feasible(torch.tensor([bound], dtype=dtype), x, 1.0) == FeasibilityReport(0, 0.0)
    assert check_feasible(torch.tensor([beyond], dtype=dtype), x, 1.0) == FeasibilityReport(1, abs(beyond - bound))


def test_bounds_are_the_real_numbers_that_are_given():
    """float32(0.3) is above 0.3, and float32(0.1) is above 0.1."""
    x = torch.tensor([0.3])
    assert x.item() > 0.3
    assert check_feasible(x, x, 0.0, clip_max=0.3).violations == 1
    assert check_feasible(torch.tensor([0.1]), torch.zeros(1), 0.1).violations == 1


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_outside(bad, norm):
    x_adv, x = torch.full((2, 3), 0.5), torch.full((2, 3), 0.5)
    x_adv[1, 2] = bad
    for pair in ((x_adv, x), (x, x_adv), (x_adv, x_adv)):
        report = check_feasible(*pair, 0.1, norm)
        # L1 and L2 count the pixel, which is outside the box, and its sample.
        assert report.violations == (1 if norm == "Linf" else 2)
        assert report.max_excess == math.inf


@pytest.mark.parametrize(("norm", "expected"), [("Linf", 0.125), ("L2", 0.375), ("L1", 2.0)])
def test_max_excess(norm, expected):
    x = torch.zeros(2, 9)
    x_adv = torch.full((2, 9), 0.25)
    x_adv[1] = 0.375
    eps = {"Linf": 0.25, "L2": 0.75, "L1": 1.375}[norm]
    report = check_feasible(x_adv, x, eps, norm)
    assert report.max_excess == pytest.approx(expected, rel=1e-12)
    assert report.violations == {"Linf": 9, "L2": 1, "L1": 2}[norm]


def test_max_excess_includes_the_box():
    assert check_feasible(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 0.5]), 0.25).max_excess == 0.5
    assert check_feasible(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 0.5]), 9.0, "L2").max_excess == 0.5
    assert check_feasible(torch.tensor([-0.25]), torch.tensor([0.0]), 9.0) == FeasibilityReport(1, 0.25)


def test_per_sample_eps():
    x, x_adv = torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.25)
    eps = torch.tensor([0.25, 0.125, 0.0])
    assert check_feasible(x_adv, x, eps) == FeasibilityReport(8, 0.25)
    assert check_feasible(x_adv, x, 2 * eps, "L2") == FeasibilityReport(2, 0.5)
    assert check_feasible(x_adv, x, math.inf, "L2") == check_feasible(x_adv, x, math.inf) == FeasibilityReport(0, 0.0)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (5,), (2, 3, 4, 4)])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_shapes_and_layouts(shape, norm):
    x = torch.rand(shape)
    assert check_feasible(x, x, 0.0, norm) == FeasibilityReport(0, 0.0)
    if len(shape) == 4:
        moved = (x + 0.5).to(memory_format=torch.channels_last)
        assert check_feasible(moved, x, 0.25, norm) == check_feasible(moved.contiguous(), x, 0.25, norm)


def test_mixed_dtypes_and_grad():
    x_adv = torch.full((2, 2), 0.5, dtype=torch.float64, requires_grad=True)
    assert check_feasible(x_adv, torch.full((2, 2), 0.5), 0.0).violations == 0
    with torch.inference_mode():
        assert check_feasible(x_adv, torch.full((2, 2), 0.5), 0.0).violations == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x_adv": torch.ones(4, dtype=torch.int64)}, TypeError, "x_adv is torch.int64"),
        ({"x": [0.5] * 4}, TypeError, "x is list"),
        ({"x": torch.rand(4, 1)}, ValueError, r"x_adv has shape \(4,\)"),
        ({"x_adv": torch.tensor(0.5), "x": torch.tensor(0.5)}, ValueError, "no dimensions"),
        ({"eps": -0.1}, ValueError, "eps=-0.1"),
        ({"eps": math.nan}, ValueError, "eps=nan"),
        ({"eps": torch.ones(3)}, ValueError, r"eps has shape \(3,\)"),
        ({"norm": "linf"}, ValueError, "norm='linf'"),
        ({"clip_min": 2.0}, ValueError, "clip_min=2.0, clip_max=1.0"),
        ({"clip_max": math.nan}, ValueError, "clip_max=nan"),
    ],
)
def test_errors(change, error, words):
    with pytest.raises(error, match=words):
        check_feasible(**{"x_adv": torch.rand(4), "x": torch.rand(4), "eps": 0.1, **change})
