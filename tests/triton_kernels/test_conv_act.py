"""A network's first layer with its activation, and the step through it, in Triton's interpreter."""

import math

import pytest
import torch
from raw import LEARNABLE, operator, rounded
from step_samples import bits
from textbook import CASES, derivative64, float64
from torch.nn.functional import conv2d

from sat_kernels._extension import KERNELS
from sat_kernels.testing import check_feasible

pytestmark = pytest.mark.skipif(KERNELS.get("cpu") != "triton", reason="run by test_interpreted.py")
CODES = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}
# Of y and z, where they are of the size of 1. The interpreter rounds bfloat16 towards zero.
ROUNDING = {torch.float32: 5e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
SILU = ("silu", 0.0, 0.0, None, None)
# Kernel, stride, padding, and the image: channels, height, width.
STEMS = {
    "3x3": (3, 1, 1, 3, 9, 7),
    "7x7": (7, 2, 3, 3, 15, 14),
    "patches of 2": (2, 2, 0, 1, 7, 8),
    "patches of 4": (4, 4, 0, 4, 9, 12),
    "patches of 16": (16, 16, 0, 3, 33, 32),
    "5x5": (5, 3, 1, 2, 11, 13),
    "pixels between": (2, 3, 0, 2, 9, 10),
    "1x1": (1, 1, 0, 2, 4, 5),
    "more padding than kernel": (3, 2, 5, 2, 4, 3),
    "one element": (4, 1, 0, 1, 4, 4),
}


@pytest.fixture(autouse=True)
def large_products(monkeypatch):
    """The interpreter's time goes by operations and not by elements."""
    from sat_kernels.triton_kernels import conv_act_operators

    for name, size in {"PLACES": 128, "INNER": 32, "MOST_COLUMNS": 1024}.items():
        monkeypatch.setattr(conv_act_operators, name, size)


def activation(name, numbers, filters=1):
    if name not in LEARNABLE:
        return (name, *(*numbers, 0.0, 0.0)[:2], None, None)
    a, b = [*(torch.full((filters,), v) for v in numbers), None][:2]
    return name, 0.0, 0.0, a, b


class Problem:
    """x, x_adv, a layer and a gradient; and in float64, z and x's gradient by autograd."""

    def __init__(self, stem="3x3", samples=2, filters=5, memory_format=torch.contiguous_format, plain=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        kernel, self.stride, self.padding, channels, height, width = STEMS[stem]

        def random(*shape):
            return torch.randn(shape, generator=generator)

        self.x = torch.rand(samples, channels, height, width, generator=generator).contiguous(
            memory_format=memory_format
        )
        self.x_adv = (self.x + 0.02 * random(*self.x.shape)).clamp(0, 1).contiguous(memory_format=memory_format)
        self.weight = random(filters, channels, kernel, kernel) / kernel
        self.bias, self.mean = (None, None) if plain else (random(filters), torch.rand(channels, generator=generator))
        self.layer = self.weight, self.bias, self.mean, self.stride, self.padding
        self.grad = random(*self.z64(self.x).shape).contiguous(memory_format=memory_format)

    def z64(self, x):
        mean = 0.0 if self.mean is None else self.mean.double().reshape(-1, 1, 1)
        bias = None if self.bias is None else self.bias.double()
        return conv2d(x.double() - mean, self.weight.double(), bias, self.stride, self.padding)

    def gradient(self, slope, grad=None):
        """slope(z): f'."""
        x = self.x_adv.double().requires_grad_()
        z = self.z64(x)
        (found,) = torch.autograd.grad(z, x, (self.grad if grad is None else grad).double() * slope(z.detach()))
        return found

    def step(self, f, eps=0.03, alpha=0.01, eps_of=None, alpha_of=None, box=(0.0, 1.0), steps=1, z=None, grad=None):
        found, grad = self.x_adv.clone(memory_format=torch.preserve_format), self.grad if grad is None else grad
        sizes = (eps, alpha, eps_of, alpha_of, *box)
        operator("conv_act_backward_pgd_step_")(grad, found, self.x, z, *self.layer, *f, *sizes, steps)
        return found

    def check_step(self, found, gradient, eps=0.03, alpha=0.01, box=(0.0, 1.0), some=False, eps_of=None, alpha_of=None):
        """That it is that of the Linf operator along x's gradient: bit for bit where the sign of that is certain."""
        expected = self.x_adv.clone(memory_format=torch.preserve_format)
        sizes = (eps, alpha, eps_of, alpha_of, *box)
        operator("pgd_step_linf_")(expected, gradient.to(torch.float32), self.x, *sizes, *[None] * 5)
        certain = (gradient.abs() > 1e-5) | (gradient == 0) | gradient.isnan()
        assert certain.double().mean() > (0.3 if some else 0.95)
        assert torch.equal(bits(found[certain]), bits(expected[certain]))


def silu_slope(z):
    return derivative64("silu", (), z, 1)


def check_close(found, expected):
    error = ROUNDING[found.dtype]
    torch.testing.assert_close(found.double(), expected, rtol=error, atol=error, check_stride=False)


@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize("stem", STEMS)
def test_stems(stem, last):
    problem = Problem(stem, memory_format=torch.channels_last if last else torch.contiguous_format)
    expected = problem.z64(problem.x)
    y, z = operator("conv_act")(problem.x, *problem.layer, *SILU, 0, True)
    assert (
        y.stride()
        == z.stride()
        == expected.float()
        .contiguous(memory_format=torch.channels_last if last and problem.x.shape[1] > 1 else torch.contiguous_format)
        .stride()
    )
    check_close(z, expected)
    check_close(y, float64("silu", (), expected))
    found, gradient = problem.step(SILU), problem.gradient(silu_slope)
    problem.check_step(found, gradient)
    assert check_feasible(found, problem.x, torch.tensor(0.03).item()).violations == 0
    if stem == "pixels between":
        assert (gradient == 0).double().mean() > 0.3
    if last:
        _, z = operator("conv_act")(problem.x_adv, *problem.layer, *SILU, 0, True)
        assert torch.equal(problem.step(SILU, z=z), found)


@pytest.mark.parametrize(("name", "numbers"), dict(reversed(CASES)).items(), ids=str)
def test_every_activation(name, numbers):
    problem = Problem()
    f, numbers = activation(name, numbers, 5), rounded(numbers, torch.float32)
    # Of a z that is float32's: the steepest of these would turn its rounding into any slope.
    y, z = operator("conv_act")(problem.x_adv, *problem.layer, *f, 0, True)
    check_close(y, float64(name, numbers, z.double()))
    gradient = problem.gradient(lambda _: derivative64(name, numbers, z, 1))
    problem.check_step(problem.step(f), gradient, some=True)


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_types(dtype):
    """Parameters of each filter. y is of the unrounded z; a step, of the gradient and the z that are given."""
    problem = Problem(filters=24, plain=True)
    betas = torch.linspace(0.5, 1.5, 24)
    f = ("swish", 0.0, 0.0, betas, None)
    expected, of_filter = problem.z64(problem.x_adv), betas.double().reshape(-1, 1, 1)
    y, z = operator("conv_act")(problem.x_adv, *problem.layer, *f, CODES[dtype], True)
    assert y.dtype == z.dtype == dtype
    check_close(z, expected)
    check_close(y, expected * torch.sigmoid(expected * of_filter))
    y, nothing = operator("conv_act")(problem.x_adv, *problem.layer, *f, CODES[dtype], False)
    assert nothing.shape == (0,)
    check_close(y, expected * torch.sigmoid(expected * of_filter))

    def slope(z):
        s = torch.sigmoid(z * of_filter)
        return s + z * of_filter * s * (1 - s)

    grad = problem.grad.to(dtype)
    problem.check_step(problem.step(f, grad=grad), problem.gradient(slope, grad))
    elsewhere = (z.roll(1, 3) - 0.5).to(dtype)
    given = problem.gradient(lambda _: slope(elsewhere.double()), grad)
    problem.check_step(problem.step(f, grad=grad, z=elsewhere), given)


def test_y_is_of_the_unrounded_z():
    problem = Problem(filters=24)
    y, z = operator("conv_act")(problem.x, *problem.layer, *SILU, 3, True)
    expected = problem.z64(problem.x)
    exact, of_rounded = (float64("silu", (), v.double()).half() for v in (expected, z))
    different = exact != of_rounded
    assert different.sum() > 10
    assert (y == exact)[different].double().mean() > 0.95


@pytest.mark.parametrize("stem", ["patches of 4", "5x5"])
def test_many_programs(stem, monkeypatch):
    """Whole ones and tails: of filters, samples, and the pixels of a place."""
    from sat_kernels.triton_kernels import conv_act_operators

    for name in ("PLACES", "INNER", "FILTERS", "LEAST_COLUMNS", "MOST_COLUMNS"):
        monkeypatch.setattr(conv_act_operators, name, 8 if "COLUMNS" in name else 16)
    problem = Problem(stem, samples=3, filters=20)
    check_close(operator("conv_act")(problem.x, *problem.layer, *SILU, 0, False)[0],
                float64("silu", (), problem.z64(problem.x)))  # fmt: skip
    problem.check_step(problem.step(SILU), problem.gradient(silu_slope))


def test_numbers_of_samples_and_channels():
    problem = Problem(samples=3)
    gradient = problem.gradient(silu_slope)
    each, channel = torch.rand(3, 3) * 0.05, torch.rand(1, 3) * 0.05
    for eps_of, alpha_of in ((each, channel), (channel, each), (each[:, :1], each.t().contiguous().t())):
        found = problem.step(SILU, eps_of=eps_of, alpha_of=alpha_of)
        problem.check_step(found, gradient, eps_of=eps_of, alpha_of=alpha_of)


def test_feasible_in_any_box():
    """Of numbers that are rounded when they are added."""
    problem = Problem("3x3", samples=4)
    problem.x *= 2.0 ** -torch.arange(40.0)[:28].reshape(1, 1, 4, 7).repeat(1, 1, 3, 1)[:, :, :9]
    for eps, box in ((8 / 255, (0.0, 1.0)), (0.3, (-0.25, 0.75)), (1e-4, (-math.inf, math.inf)), (0.0, (0.0, 1.0))):
        problem.x = problem.x.clamp(*box)
        eps = torch.tensor(eps).item()
        found = problem.step(SILU, eps=eps, alpha=0.1, box=box)
        assert check_feasible(found, problem.x, eps, "Linf", *box).violations == 0
        problem.check_step(found, problem.gradient(silu_slope), eps, 0.1, box)


@pytest.mark.parametrize("stem", ["3x3", "5x5"])
def test_many_steps(stem):
    """z is that of each step's x_adv."""
    problem = Problem(stem, filters=3)
    found = problem.step(SILU, eps=0.3, alpha=0.1, steps=3)
    for _ in range(2):
        problem.x_adv = problem.step(SILU, eps=0.3, alpha=0.1)
    problem.check_step(found, problem.gradient(silu_slope), 0.3, 0.1)


def test_any_strides():
    problem = Problem("5x5")
    wanted, expected = problem.step(SILU), operator("conv_act")(problem.x, *problem.layer, *SILU, 0, False)[0]

    def spread(t):
        """The same, in every second of larger memory's elements."""
        larger = torch.full([2 * n for n in t.shape], math.nan)
        larger[tuple(slice(None, None, 2) for _ in t.shape)] = t
        return larger[tuple(slice(None, None, 2) for _ in t.shape)]

    _, z = operator("conv_act")(problem.x_adv, *problem.layer, *SILU, 0, True)
    problem.layer = (*(spread(t) for t in problem.layer[:3]), *problem.layer[3:])
    problem.x, problem.grad = spread(problem.x), spread(problem.grad.transpose(2, 3)).transpose(2, 3)
    found = spread(problem.x_adv.transpose(1, 3)).transpose(1, 3)
    rest = (0.03, 0.01, None, None, 0.0, 1.0, 1)
    operator("conv_act_backward_pgd_step_")(problem.grad, found, problem.x, spread(z), *problem.layer, *SILU, *rest)
    assert torch.equal(found, wanted)
    assert torch.equal(operator("conv_act")(problem.x, *problem.layer, *SILU, 0, False)[0], expected)
    problem.grad = torch.ones(1, 1, 1, 1).expand(problem.grad.shape)
    problem.check_step(problem.step(SILU), problem.gradient(silu_slope))


@pytest.mark.parametrize("stem", ["3x3", "5x5"])
def test_nan(stem):
    """It makes no step where it is in the sum, and only there."""
    problem = Problem(stem)
    problem.grad[0, 2, 1, 1] = math.nan
    gradient = problem.gradient(silu_slope)
    assert 0 < gradient.isnan().sum() <= problem.weight[0].numel()
    problem.check_step(problem.step(SILU), gradient)


def test_nothing_to_do():
    problem = Problem(samples=0)
    y, z = operator("conv_act")(problem.x, *problem.layer, *SILU, 2, True)
    assert y.shape == z.shape == problem.grad.shape
    assert problem.step(SILU).shape == problem.x.shape


def wrong_calls():
    problem = Problem()
    x, weight, bias, mean = problem.x, *problem.layer[:3]
    good = (x, weight, bias, mean, 1, 1, *SILU, 0, True)
    for change, text in (
        ({0: x.double()}, "x: expected float32"),
        ({0: torch.rand(1, 5, 4, 4)}, "x: expected float32 .B, C, H, W. with 1 to 4 channels"),
        ({1: weight[:, :2]}, "weight: expected float32"),
        ({1: torch.rand(5, 3, 12, 3)}, "weight: expected a filter, .* no larger than the padded x"),
        ({1: weight[:0], 2: None}, "weight: expected a filter"),
        ({2: bias[:2]}, "bias: expected 5 float32 numbers"),
        ({3: mean.double()}, "mean: expected 3 float32 numbers"),
        ({4: 0}, "stride=0, padding=1: expected"),
        ({5: -1}, "stride=1, padding=-1: expected"),
        ({6: "relu"}, "activation=relu: expected one of"),
        ({6: "swish", 9: torch.ones(3)}, "parameters: expected one element"),
        ({11: 1}, "dtype=1: expected one of 0"),
    ):
        yield text, "conv_act", tuple(change.get(i, value) for i, value in enumerate(good))
    grad = problem.grad
    good = (grad, x.clone(), x, None, *problem.layer, *SILU, 0.1, 0.1, None, None, 0.0, 1.0, 1)
    for change, text in (
        ({0: grad[:1]}, "grad: expected float32, bfloat16 or float16"),
        ({0: grad.double()}, "grad: expected float32, bfloat16 or float16"),
        ({1: x[:1].clone()}, "x differs in shape from x_adv"),
        ({1: x.double()}, "x differs in dtype from x_adv"),
        ({3: grad[:1]}, "z differs in shape from grad"),
        ({3: grad.half()}, "z differs in dtype from grad"),
        ({3: grad, 20: 2}, "steps=2: expected at least 1, and no more with z"),
        ({20: 0}, "steps=0: expected"),
        ({16: torch.ones(3, 1)}, "eps_of: expected"),
        ({17: torch.ones(1, 2)}, "alpha_of: expected"),
    ):
        yield text, "conv_act_backward_pgd_step_", tuple(change.get(i, value) for i, value in enumerate(good))


def test_errors():
    for text, name, arguments in wrong_calls():
        with pytest.raises(RuntimeError, match=text):
            operator(name)(*arguments)
