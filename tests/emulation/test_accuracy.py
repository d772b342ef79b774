"""The GPU's formulas against the definitions, with special functions as inaccurate as a GPU's may be."""

import ctypes
import math

import pytest
import raw
import torch
from raw import LEARNABLE, computed_in, every_number, needs_extension, rounded
from targets import slope_tolerance, tolerance
from textbook import CASES, IDS, KINKED, derivative64, exact, largest_second, ulps

ALL = pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
LEARNED = [pytest.param(*case, id=id) for case, id in zip(CASES, IDS, strict=True) if case[0] in LEARNABLE]
ORDERS = pytest.mark.parametrize("order", [0, 1, 2])
SHORT = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
LONG = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

POINTS = [0.0, 5e-324, 1e-38, 1e-8, 1e-3, 0.01, 0.3466, 0.75179, 1.0, 2.3994, 7.6, 17.0, 19.99, 20.01, 86.0, 88.0, 1e4]
POINTS = [sign * x for x in (*POINTS, *torch.logspace(-3, 2, 16, dtype=torch.float64).tolist()) for sign in (1, -1)]


def run(kernels, name, numbers, x, order, **settings):
    """Value, first or second derivative."""
    kind = ("forward", "backward", "double_backward")[order]
    ones = {"grad": torch.ones_like(x), "grad_grad": torch.ones_like(x)}
    tensors = {"input": x, **dict(list(ones.items())[:order])}
    if name in LEARNABLE:
        numbers = tuple(torch.tensor([v], dtype=torch.float64) for v in numbers)
    return kernels.run(name, kind, tensors, numbers, **settings)["out"].tensor


def slopes(kernels, name, numbers, x, **settings):
    """df/dp at every element of x, for each parameter p: each element is a channel of its own."""
    each = tuple(torch.full(x.shape, v, dtype=torch.float64) for v in numbers)
    memory = kernels.run(name, "parameter_backward", {"grad": torch.ones_like(x), "input": x}, each, **settings)
    return [memory[f"parameter_grad {k}"].tensor for k in range(len(numbers))]


@ORDERS
@LONG
@ALL
def test_hard_points(kernels, name, numbers, dtype, order):
    x = torch.tensor(POINTS, dtype=dtype)
    found, numbers = run(kernels, name, numbers, x, order).tolist(), rounded(numbers, dtype)
    wrong = []
    for point, value in zip(x.tolist(), found, strict=True):
        if point == 0 and order > 0 and name in KINKED:
            continue
        wanted = exact(name, numbers, point)[order]
        limit = tolerance(name, numbers, point, dtype, order, wanted)
        if not abs(value - wanted) <= limit:
            wrong.append(
                f"x={point!r}: {value!r} instead of {wanted!r}: {abs(value - wanted) / (limit or 1):.3} limits"
            )
    assert not wrong, "\n".join(wrong)


@ORDERS
@SHORT
@ALL
def test_every_16_bit_input(kernels, name, numbers, dtype, order):
    """Whichever way the special functions err."""
    x = every_number(dtype)
    kept = x.isfinite() & (x.double().abs() < 1e15)
    if name in KINKED and order > 0:
        kept &= x != 0
    at, made = x[kept].double(), rounded(numbers, dtype)
    wanted = derivative64(name, made, at, order)
    slack = {1: 3e-7, 2: 6e-7 * largest_second(name, made)}.get(order, 0.0)
    if name == "pssilu" and order == 0:  # it has a zero away from 0
        slack = 4e-7 * at.abs().clamp(min=1)
    limit = ulps(wanted, dtype) + slack
    limit[wanted.abs() > torch.finfo(dtype).max] = torch.inf
    for direction in (0, 1, -1):
        found = run(kernels, name, numbers, x, order, direction=direction)
        assert found[x.isnan()].isnan().all()
        assert not found[~x.isnan()].isnan().any()
        found = found[kept].double()
        bad = (found - wanted).abs() > limit
        assert not bad.any(), f"{int(bad.sum())} inputs: {at[bad][:3]}: {found[bad][:3]} instead of {wanted[bad][:3]}"


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "numbers"), LEARNED)
def test_every_term_of_parameter_gradients(kernels, name, numbers, dtype):
    """For 16-bit types they are float32, as if the input were; at many numbers, compared with the CPU's in float64."""
    x = torch.tensor(POINTS, dtype=dtype) if dtype.itemsize > 2 else every_number(dtype)[::13]
    x = x[x.isfinite() & (x.double().abs() < 1e15)]
    found, numbers = slopes(kernels, name, numbers, x), rounded(numbers, dtype)
    at, kind = x.double(), computed_in(dtype)
    for k, (term, by_cpu) in enumerate(zip(found, raw.slopes(name, numbers, at), strict=True)):
        assert term.dtype == kind
        wanted = by_cpu
        if dtype.itemsize > 2:
            wanted = torch.tensor([exact(name, numbers, v, k + 1)[1] for v in x.tolist()], dtype=torch.float64)
        if name == "smooth_relu":  # its derivative at 0 depends on the side, and is 0 here
            assert term[x == 0].eq(0).all()
            wanted[x == 0] = 0
        bad = ~((term.double() - wanted).abs() <= slope_tolerance(name, numbers, k, at, kind, wanted))
        assert not bad.any(), f"{int(bad.sum())} inputs: {at[bad][:3]}: {term[bad][:3]} for {wanted[bad][:3]}"


def test_sums_keep_what_rounding_takes(kernels):
    """16,384 terms are what a thread has of 4 billion elements. A float's own sum is 1.5e-4 off."""
    terms, add_up = torch.full((16_384,), 0.1), kernels.library.added_up
    add_up.argtypes, add_up.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_float
    expected = terms.double().sum().item()
    assert add_up(terms.data_ptr(), terms.numel()) == pytest.approx(expected, rel=1e-7)
    terms[7] = torch.inf
    assert add_up(terms.data_ptr(), terms.numel()) == torch.inf
    terms[9] = -torch.inf
    assert math.isnan(add_up(terms.data_ptr(), terms.numel()))
