"""The activations' raw kernels against formulas of their own, in mpmath and float64."""

import math
import os
import subprocess
import sys
from pathlib import Path

import mpmath as mp
import pytest
import torch
from torch.library import opcheck

from sat_kernels._extension import extension
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.functional import gelu, silu

needs_extension = pytest.mark.skipif(extension is None, reason="the extension is not built")

# Per activation: numbers to test with, and value and derivatives as text-book formulas of mpmath numbers.
CASES = [
    ("silu", ()),
    ("gelu", ()),
    ("gelu_tanh", ()),
    ("softplus", (1.0, 20.0)),
    ("softplus", (2.5, 20.0)),
    ("softplus", (-1.0, 20.0)),
    ("parametric_softplus", (10.0,)),
    ("elu", (1.0,)),
    ("elu", (1.7,)),
    ("celu", (1.0,)),
    ("celu", (0.5,)),
    ("smooth_relu", (4.0,)),
    ("smooth_relu", (400.0,)),
    ("mish", ()),
]
IDS = [f"{name}{numbers or ''}" for name, numbers in CASES]
HARD = [0.0, 1e-45, 1e-38, 1e-30, 1e-8, 1e-5, 1e-4, 1e-3, 2.4e-3, 0.01, 0.1, 0.3466, 0.5, 0.75179, 1.0, 1.19243]
HARD += [1.27846, 2.0, 2.3994, 3.0, 5.0, 7.6, 10.0, 17.0, 19.99, 20.0, 20.01, 40.0, 80.0, 86.0]
HARD = [sign * x for x in HARD for sign in (1, -1)]


def exact(name, numbers, order):
    """The derivative of that order, of one number, at 150 digits: the differences cancel most of them."""

    def tanh_gelu(x):
        return x / (1 + mp.exp(-2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)))

    functions = {
        "silu": lambda x: x / (1 + mp.exp(-x)),
        "gelu": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
        "gelu_tanh": tanh_gelu,
        "softplus": lambda x, b, limit: x if x * b > limit else mp.log1p(mp.exp(b * x)) / b,
        "parametric_softplus": lambda x, a: mp.log1p(mp.exp(a * x)) / a,
        "elu": lambda x, a: x if x > 0 else a * mp.expm1(x),
        "celu": lambda x, a: x if x > 0 else a * mp.expm1(x / a),
        "smooth_relu": lambda x, b: x - mp.log1p(b * x) / b if x > 0 else mp.mpf(0),
        "mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
    }

    def derivative(x):
        with mp.workdps(150):
            x = mp.mpf(x)
            if order == 0:
                return functions[name](x, *numbers)
            step = abs(x) * mp.mpf("1e-9") if 0 < abs(x) < 1e-3 else mp.mpf("1e-12")
            return mp.diff(lambda t: functions[name](t, *numbers), x, order, h=step)

    return derivative


def tensors(row, numbers, dtype=torch.float32):
    return tuple(torch.tensor(v, dtype=dtype) for v in numbers) if row.learnable else numbers


def run(name, numbers, x, order):
    """Value, first or second derivative by the raw kernels."""
    row, library, one = ACTIVATIONS[name], torch.ops.sat_kernels, torch.ones_like(x)
    parameters = tensors(row, numbers, torch.float64 if x.dtype == torch.float64 else torch.float32)
    if order == 0:
        return getattr(library, name)(x, *parameters)
    if order == 1:
        return getattr(library, f"{name}_backward")(one, x, *parameters)
    return getattr(library, f"{name}_double_backward")(one, one, x, *parameters)[1]


def ulp(value: float, dtype: torch.dtype) -> float:
    """Distance from |value| to the next number of ``dtype``."""
    info = torch.finfo(dtype)
    exponent = max(math.frexp(abs(value))[1] - 1, math.frexp(info.tiny)[1] - 1)
    return math.ldexp(info.eps, exponent)


def tolerance(name, numbers, x, dtype, order, value) -> float:
    """Units: absolute. In ulp for values; rounding the argument costs |z| ulp in a tail, whatever the form."""
    unit = 2.0**-23 if dtype == torch.float32 else 2.0**-52
    if order == 1:
        return (3e-7 if dtype == torch.float32 else 6e-16) * max(1, *map(abs, numbers[:1]), 1)
    if order == 2:
        largest = {"softplus": 1.0, "parametric_softplus": 2.5, "elu": 2.0, "celu": 2.0}.get(name, 1.0)
        return 5 * unit * (numbers[0] if name == "smooth_relu" else largest)
    if name == "gelu":
        units = 6 + 2 * x * x
    elif name == "gelu_tanh":
        units = 6 + 4 * abs(1.6 * (x + 0.0447 * x**3))
    elif name in ("softplus", "parametric_softplus"):
        units = 6 + abs(numbers[0] * x)
    else:
        units = 8
    return units * ulp(value, dtype)


@needs_extension
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
def test_hard_points(name, numbers, dtype, order):
    x = torch.tensor(HARD, dtype=dtype)
    found = run(name, numbers, x, order).tolist()
    reference = exact(name, numbers, order)
    for point, value in zip(x.tolist(), found, strict=True):
        if point == 0 and order > 0 and name in ("elu", "celu", "smooth_relu"):
            continue  # a kink of f or f', where differences see both sides: test_kinks
        if name == "softplus" and abs(point * numbers[0] - numbers[1]) < 1e-3:
            continue  # at the threshold the definition itself jumps
        expected = float(reference(point))
        limit = tolerance(name, numbers, point, dtype, order, expected)
        assert abs(value - expected) <= limit, f"x={point}: {value} instead of {expected}"


def reference64(name, numbers, x):
    """Value in float64, by formulas whose autograd derivatives are stable, too."""
    s = torch.nn.functional.softplus
    if name == "gelu":
        return x * torch.special.erfc(-x / math.sqrt(2)) / 2
    if name == "smooth_relu":
        t = numbers[0] * x.clamp(min=0)
        return torch.where(t < 1e-4, t * t / 2 - t**3 / 3 + t**4 / 4, t - torch.log1p(t)) / numbers[0]
    if name in ("softplus", "parametric_softplus"):
        smooth = s(x * numbers[0], threshold=700.0) / numbers[0]
        return torch.where(x * numbers[0] > 20, x, smooth) if name == "softplus" else smooth
    return {
        "silu": lambda: x * torch.sigmoid(x),
        "gelu_tanh": lambda: x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
        "elu": lambda: torch.where(x > 0, x, numbers[0] * torch.expm1(x.clamp(max=0))),
        "celu": lambda: torch.where(x > 0, x, numbers[0] * torch.expm1(x.clamp(max=0) / numbers[0])),
        "mish": lambda: x * torch.tanh(s(x, threshold=700.0)),
    }[name]()


@needs_extension
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "numbers"), CASES, ids=IDS)
def test_every_16_bit_input(name, numbers, dtype, order):
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    finite = x.isfinite() & (x.double().abs() < 1e15)  # beyond, only the limits below are left
    found = run(name, numbers, x, order)
    assert found[x.isnan()].isnan().all()
    assert not found[~x.isnan()].isnan().any()
    x64 = x[finite].double().requires_grad_()
    expected = reference64(name, numbers, x64)
    for _ in range(order):
        (expected,) = torch.autograd.grad(expected.sum(), x64, create_graph=True)
    expected, found = expected.detach(), found[finite].double()
    if name in ("elu", "celu", "smooth_relu"):
        kink = x64.detach() == 0
        expected, found = expected[~kink], found[~kink]
    info = torch.finfo(dtype)
    exponent = torch.frexp(expected.abs().clamp(min=info.tiny))[1] - 1
    unit = torch.ldexp(torch.full_like(expected, info.eps), exponent)
    scale = numbers[0] if name == "smooth_relu" and order == 2 else max([1.0, *map(abs, numbers[:1])])
    slack = 0.0 if order == 0 else 6e-7 * scale
    bad = (found - expected).abs() > unit + slack
    bad &= expected.abs() <= info.max
    assert not bad.any(), f"{int(bad.sum())} inputs, first {x64[: len(bad)].detach()[bad][:3].tolist()}"


@needs_extension
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_limits(name, dtype):
    numbers = ACTIVATIONS[name].defaults
    x = torch.tensor([math.inf, -math.inf, math.nan, 1e30, -1e30], dtype=dtype)
    low = {"elu": -1.0, "celu": -1.0}.get(name, 0.0)
    assert run(name, numbers, x, 0)[[0, 1, 3, 4]].tolist() == pytest.approx([math.inf, low, 1e30, low], rel=1e-6)
    assert run(name, numbers, x, 1)[[0, 1, 3, 4]].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert run(name, numbers, x, 2)[[0, 1, 3, 4]].abs().max() < 1e-27
    assert all(run(name, numbers, x, order)[2].isnan() for order in range(3))


@needs_extension
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_kinks(zero):
    x = torch.tensor([zero])
    assert [run("elu", (1.7,), x, order).item() for order in (1, 2)] == pytest.approx([1.7, 0.0])  # as ATen
    assert [run("celu", (0.5,), x, order).item() for order in (1, 2)] == [1.0, 0.0]
    assert [run("smooth_relu", (400.0,), x, order).item() for order in (0, 1, 2)] == [0.0, 0.0, 0.0]


LAYOUTS = {
    "contiguous": lambda: torch.randn(3, 5),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "permuted": lambda: torch.randn(3, 4, 5).permute(2, 0, 1),
    "sliced": lambda: torch.randn(4, 6)[:, ::2],
    "expanded": lambda: torch.randn(4).expand(3, 4),
    "empty": lambda: torch.randn(0, 3),
    "0-d": lambda: torch.randn(()),
    "odd": lambda: torch.randn(100_003)[1:],
}
CHECKED = ("channels_last", "sliced", "empty")  # with opcheck's four tests, a tenth of a second each


@needs_extension
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_raw_operators(name, layout):
    torch.manual_seed(0)
    row, library, x = ACTIVATIONS[name], torch.ops.sat_kernels, LAYOUTS[layout]()
    parameters, grad = tensors(row, row.defaults), torch.randn_like(x).contiguous()
    calls = [(name, (x,)), (f"{name}_backward", (grad, x)), (f"{name}_double_backward", (grad, grad, x))]
    if row.learnable:
        calls.append((f"{name}_parameter_backward", (grad, x)))
    for operator, arguments in calls:
        operator = getattr(library, operator).default
        if layout in CHECKED:
            opcheck(operator, (*arguments, *parameters))
        found = operator(*arguments, *parameters)
        flat = operator(*(a.contiguous() for a in arguments), *parameters)
        torch.testing.assert_close(found, flat, rtol=0, atol=0)
    if layout != "expanded":
        expected = getattr(library, name)(x, *parameters)
        if layout in CHECKED:
            opcheck(getattr(library, f"{name}_").default, (x.clone(), *parameters))
        getattr(library, f"{name}_")(x, *parameters)
        torch.testing.assert_close(x, expected, rtol=0, atol=0)


@needs_extension
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_outputs_are_written_completely(name):
    """Allocations are filled with NaN; any element that a kernel leaves out shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        for size in (1, 7, 8, 9, 31, 33, 511, 513, 16_383, 16_385, 40_001):
            x = torch.randn(size)
            for order in range(3):
                assert not run(name, ACTIVATIONS[name].defaults, x, order).isnan().any()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before


@needs_extension
def test_parameter_gradient_does_not_depend_on_threads():
    x, grad = torch.randn(300_001), torch.randn(300_001)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(torch.ops.sat_kernels.smooth_relu_parameter_backward(grad, x, torch.tensor(9.0))[1])
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


@needs_extension
def test_kernels_for_lesser_machines():
    """The same tests on the baseline's kernels, which are compiled without fused multiply-add."""
    tests = [__file__, str(Path(__file__).with_name("test_perturbation.py"))]
    chosen = "hard_points or every_16_bit or limits or kinks or written_completely or exact or feasib"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", f"({chosen}) and not lesser", *tests]
    environment = {**os.environ, "SAT_KERNELS_CPU_CAPABILITY": "baseline"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    code = "import sat_kernels; print(sat_kernels.build_info()['cpu_capability'])"
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "baseline"


def test_a_wrong_gradient_would_be_seen():
    """The checks above can fail: the tanh form is not within the erf form's tolerance."""
    x = torch.tensor([1.0], dtype=torch.float64)
    difference = (gelu(x) - gelu(x, approximate="tanh")).abs().item()
    assert difference > tolerance("gelu", (), 1.0, torch.float64, 0, 0.84) * 1e6
    assert silu(x).item() == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-15)
