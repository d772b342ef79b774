"""The PGD step: exactly feasible, no shorter than it must be, and nothing else changed."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_kernels.ops import pgd_step_
from sat_kernels.testing import check_feasible

FLOATS = (torch.float32, torch.float64)
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
BOXES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
RADII = (8 / 255, 0.031, 0.3, 0.0, 1e-12, 1e-40, 1e-310, 5e-324, 0.7, 1e30)


def bits(tensor):
    return tensor.contiguous().view(BITS[tensor.dtype])


def hard_pixels(dtype, low, high, seed=0):
    """Pixels of the box at which rounding goes wrong easily, and random ones."""
    generator = torch.Generator().manual_seed(seed)
    size = high - low
    powers = 2.0 ** torch.arange(-12.0, 8.0, dtype=dtype)
    smallest = torch.nextafter(torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)).item()
    near = [torch.nextafter(powers, torch.full_like(powers, to)) for to in (-math.inf, math.inf)]
    special = torch.tensor(
        [low, high, 0.0, -0.0, 0.7, smallest, 3 * smallest, 2.0**-130, 1e-310, 8 / 255, 0.031, 0.3], dtype=dtype
    )
    grid = torch.arange(0, 256, 5, dtype=dtype) / 255
    uniform = torch.rand(80, generator=generator, dtype=dtype)
    small = uniform * 2.0 ** -torch.arange(80, dtype=dtype).fmod(40)
    pixels = torch.cat([special, powers, *near, low + size * grid, low + size * uniform, small])
    pixels = torch.cat([pixels, -pixels, high - pixels])
    return pixels[(pixels >= low) & (pixels <= high)]


def rounded_up(value, dtype):
    """The least number of ``dtype`` that is >= the Fraction ``value``."""
    number = NUMPY[dtype](float(value))
    while Fraction(number.item()) < value:
        number = np.nextafter(number, NUMPY[dtype](math.inf))
    while math.isfinite(before := np.nextafter(number, NUMPY[dtype](-math.inf)).item()) and before >= value:
        number = NUMPY[dtype](before)
    return number.item()


def rounded_down(value, dtype):
    return -rounded_up(-value, dtype)


def exact_step(x_adv, grad, x, eps, alpha, low, high):
    """The step with every bound in rational arithmetic, rounded once, inwards."""
    dtype = x.dtype
    eps = Fraction(rounded_down(Fraction(eps), dtype))
    low, high = rounded_up(Fraction(low), dtype), rounded_down(Fraction(high), dtype)
    moved = x_adv + torch.tensor(alpha, dtype=dtype) * grad.sign().to(dtype)
    result = []
    for value, pixel in zip(moved.tolist(), x.tolist(), strict=True):
        lower = rounded_up(Fraction(pixel) - eps, dtype)
        upper = rounded_down(Fraction(pixel) + eps, dtype)
        result.append(min(max(min(max(value, lower), upper), low), high))
    return torch.tensor(result, dtype=dtype)


def outside(x_adv, x, eps, low, high):
    """Violations by rational arithmetic, for finite numbers."""
    eps = Fraction(eps)
    return sum(
        abs(Fraction(a) - Fraction(b)) > eps or not low <= a <= high
        for a, b in zip(x_adv.flatten().tolist(), x.flatten().tolist(), strict=True)
    )


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", RADII)
def test_equals_exact_arithmetic(eps, dtype, box):
    x = hard_pixels(dtype, *box)
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(x.shape, generator=generator, dtype=dtype)
    grad[::7] = 0
    x_adv = x.clone()
    for alpha in (eps / 4, 2 * eps):
        expected = exact_step(x_adv, grad, x, eps, alpha, *box)
        result = pgd_step_(x_adv, grad, x, eps=eps, alpha=alpha, clip_min=box[0], clip_max=box[1])
        assert result is x_adv
        assert torch.equal(x_adv, expected)
        assert outside(x_adv, x, eps, *box) == 0
        assert check_feasible(x_adv, x, eps, clip_min=box[0], clip_max=box[1]).violations == 0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", [8 / 255, 0.031, 0.3, 1e-40])
def test_reaches_as_far_as_the_ball_allows(eps, dtype):
    """Feasibility alone would also hold for a step that does nothing."""
    x = hard_pixels(dtype, -1.0, 1.0)
    for sign in (1, -1):
        x_adv = pgd_step_(x.clone(), torch.full_like(x, sign), x, eps=eps, alpha=10 * eps, clip_min=-1.0)
        for value, pixel in zip(x_adv.tolist(), x.tolist(), strict=True):
            exact = min(max(Fraction(pixel) + sign * Fraction(eps), -1), 1)
            unit = NUMPY[dtype](max(abs(value), abs(float(exact)), eps))
            assert abs(Fraction(value) - exact) <= 2 * Fraction(np.spacing(unit).item())


# float32 rounds 0.1 and 0.3 up, 0.7 and 0.95 down.
@pytest.mark.parametrize("box", [(0.1, 0.3), (0.7, 0.95)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_bounds_that_the_dtype_cannot_hold_are_rounded_inwards(dtype, box):
    x = torch.full((100,), sum(box) / 2, dtype=dtype)
    for direction, bound in ((-1.0, rounded_up(Fraction(box[0]), dtype)), (1.0, rounded_down(Fraction(box[1]), dtype))):
        grad = torch.full_like(x, direction)
        x_adv = pgd_step_(x.clone(), grad, x, eps=1.0, alpha=1.0, clip_min=box[0], clip_max=box[1])
        assert box[0] <= bound <= box[1]
        assert (x_adv == bound).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_many_steps_stay_feasible(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (8, 500), generator=generator).to(dtype) / 255
    x_adv = x.clone()
    for _ in range(10):
        pgd_step_(x_adv, torch.randn(x.shape, generator=generator), x, eps=8 / 255, alpha=2 / 255)
    assert check_feasible(x_adv, x, 8 / 255) == check_feasible(x, x, 8 / 255)
    assert (x_adv - x).abs().max() > 7.9 / 255


@st.composite
def layouts(draw, shape):
    """A function that gives a tensor of ``shape`` other strides, but no other values."""
    order = draw(st.permutations(range(len(shape))))
    gaps = [draw(st.integers(1, 3)) for _ in shape]
    offset = draw(st.integers(0, 3))

    def lay_out(tensor):
        sizes = [(tensor.shape[d] - 1) * gaps[d] + 1 if tensor.shape[d] else 0 for d in order]
        storage = torch.full((offset + math.prod(sizes),), math.nan, dtype=tensor.dtype)
        view = storage[offset:].view(sizes).permute([order.index(d) for d in range(len(shape))])
        view = view[tuple(slice(None, None, gap) for gap in gaps)]
        return view.copy_(tensor)

    return lay_out


@st.composite
def cases(draw):
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from(FLOATS))
    grad_dtype = draw(st.sampled_from([*FLOATS, torch.bfloat16, torch.float16]))
    return shape, seed, dtype, grad_dtype, [draw(layouts(shape)) for _ in range(3)], draw(st.booleans())


@given(cases())
@settings(max_examples=150, deadline=None)
def test_layouts_and_dtypes_make_no_difference(case):
    shape, seed, dtype, grad_dtype, (lay_x_adv, lay_grad, lay_x), per_sample = case
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=dtype)
    x_adv = torch.rand(shape, generator=generator, dtype=dtype)
    grad = torch.randn(shape, generator=generator).to(grad_dtype)
    eps = torch.rand(shape[0], generator=generator) if per_sample else 0.1
    expected = exact_step_of(x_adv, grad, x, eps)
    result = lay_x_adv(x_adv)
    strides = result.stride()
    pgd_step_(result, lay_grad(grad), lay_x(x), eps=eps, alpha=0.05)
    assert torch.equal(result, expected)
    assert result.stride() == strides


def exact_step_of(x_adv, grad, x, eps):
    if isinstance(eps, float):
        return exact_step(x_adv.flatten(), grad.flatten(), x.flatten(), eps, 0.05, 0, 1).reshape(x.shape)
    rows = zip(x_adv, grad, x, eps.tolist(), strict=True)
    return torch.stack([exact_step_of(*row) for row in rows]) if len(x) else x_adv.clone()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_writes_only_x_adv(memory_format):
    base = torch.rand(4, 6, 5, 5).to(memory_format=memory_format)
    x_adv, rest = base[:, :3], base[:, 3:].clone()
    x, grad = torch.rand(4, 3, 5, 5), torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    x_before, grad_before = x.clone(), grad.clone()
    pgd_step_(x_adv, grad, x, eps=0.1, alpha=0.1)
    assert torch.equal(base[:, 3:], rest)
    assert torch.equal(x, x_before)
    assert torch.equal(grad, grad_before)


class Subclass(torch.Tensor):
    """Kernels are for plain tensors: a subclass takes the reference path."""


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("grad_dtype", [*FLOATS, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", FLOATS)
def test_same_bits_as_the_plain_path(dtype, grad_dtype, per_sample):
    x = torch.cat([hard_pixels(dtype, -1.0, 1.0), torch.tensor([math.nan, math.inf, -math.inf, 3.0, -3.0])])
    x = x.to(dtype).expand(3, -1).contiguous()
    generator = torch.Generator().manual_seed(2)
    x_adv = (x + 0.2 * torch.randn(x.shape, generator=generator, dtype=dtype)).index_fill_(
        1, torch.arange(0, x.shape[1], 50), math.nan
    )
    grad = torch.randn(x.shape, generator=generator).to(grad_dtype)
    for start, value in enumerate((0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, -1e-45)):
        grad[:, start::20] = value
    sizes = {"eps": 0.031, "alpha": 0.01}
    if per_sample:
        sizes = {name: torch.tensor([size, 0.0, 2 * size]) for name, size in sizes.items()}
    plain = x_adv.clone().as_subclass(Subclass)
    pgd_step_(plain, grad, x, **sizes, clip_min=-1.0)
    pgd_step_(x_adv, grad, x, **sizes, clip_min=-1.0)
    # Equal values are equal bits, but for the sign of zero, which torch.minimum leaves open.
    torch.testing.assert_close(x_adv, plain.as_subclass(torch.Tensor), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("grad_dtype", [*FLOATS, torch.bfloat16, torch.float16])
def test_special_gradients(grad_dtype):
    smallest = torch.finfo(grad_dtype).smallest_normal * torch.finfo(grad_dtype).eps
    grad = torch.tensor([math.nan, 0.0, -0.0, math.inf, -math.inf, smallest, -smallest, 2.0, -2.0], dtype=grad_dtype)
    assert grad[5] > 0
    x = torch.full((9,), 0.5)
    x_adv = pgd_step_(x.clone(), grad, x, eps=0.25, alpha=0.125)
    assert x_adv.tolist() == [0.5, 0.5, 0.5, 0.625, 0.375, 0.625, 0.375, 0.625, 0.375]


def test_without_a_gradient_the_point_is_still_projected():
    x = torch.full((3,), 0.5)
    x_adv = pgd_step_(torch.tensor([0.0, 1.0, 0.6]), torch.tensor([0.0, math.nan, -0.0]), x, eps=0.25, alpha=0.1)
    assert x_adv.tolist() == [0.25, 0.75, pytest.approx(0.6)]


@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_infinite_points(dtype):
    x = torch.tensor([0.5, math.nan, 0.5, 0.5], dtype=dtype)
    x_adv = torch.tensor([math.nan, 0.9375, math.inf, -math.inf], dtype=dtype)
    pgd_step_(x_adv, torch.ones(4), x, eps=0.25, alpha=0.125)
    assert x_adv[0].isnan()
    assert x_adv[1:].tolist() == [1.0, 0.75, 0.25]  # around no point there is no ball, but there is the box


def test_outside_the_box_the_box_wins():
    x = torch.tensor([-2.0, 3.0, 1.125])
    x_adv = pgd_step_(x.clone(), torch.tensor([1.0, -1.0, 1.0]), x, eps=0.25, alpha=0.25)
    assert x_adv.tolist() == [0.0, 1.0, 1.0]
    assert check_feasible(x_adv, x, 0.25).violations == 2


def test_an_infinite_radius_leaves_the_box():
    x = torch.full((2,), 0.5)
    assert pgd_step_(x.clone(), torch.tensor([1.0, -1.0]), x, eps=math.inf, alpha=1e38).tolist() == [1.0, 0.0]


def test_negative_alpha_descends():
    x = torch.full((2,), 0.5)
    assert pgd_step_(x.clone(), torch.tensor([1.0, -1.0]), x, eps=0.25, alpha=-0.125).tolist() == [0.375, 0.625]


@pytest.mark.parametrize("size_dtype", [*FLOATS, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", FLOATS)
def test_per_sample_sizes_equal_a_loop(dtype, size_dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 3, 4, generator=generator, dtype=dtype)
    x_adv = torch.rand(5, 3, 4, generator=generator, dtype=dtype)
    grad = torch.randn(5, 3, 4, generator=generator)
    eps = torch.tensor([0.0, 0.031, 8 / 255, 0.3, 1e-5], dtype=torch.float64).to(size_dtype)
    alpha = torch.tensor([0.1, 0.0, 2 / 255, -0.01, 1.0], dtype=torch.float64).to(size_dtype)
    expected = x_adv.clone()
    for i in range(5):
        pgd_step_(expected[i : i + 1], grad[i : i + 1], x[i : i + 1], eps=eps[i].item(), alpha=alpha[i].item())
    mixed = x_adv.clone()
    for i in range(5):
        pgd_step_(mixed[i : i + 1], grad[i : i + 1], x[i : i + 1], eps=eps[i].item(), alpha=0.02)
    assert torch.equal(pgd_step_(x_adv.clone(), grad, x, eps=eps, alpha=alpha), expected)
    assert torch.equal(pgd_step_(x_adv.clone(), grad, x, eps=eps, alpha=0.02), mixed)
    # A strided vector of sizes means its values, not its memory.
    strided = torch.stack([eps, -torch.ones_like(eps)], 1)[:, 0]
    assert torch.equal(pgd_step_(x_adv, grad, x, eps=strided, alpha=alpha), expected)
    assert check_feasible(x_adv, x, eps).violations == 0
