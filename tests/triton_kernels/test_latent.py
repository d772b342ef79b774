"""Activations of perturbed inputs, and steps of the perturbation, in Triton's interpreter."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from raw import computed_in, operator, rounded, tensors
from textbook import CASES, derivative64, float64

from sat_kernels._extension import KERNELS
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.testing import check_feasible

pytestmark = pytest.mark.skipif(KERNELS.get("cpu") != "triton", reason="run by test_interpreted.py")
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
UNBOUNDED = (-math.inf, math.inf, None, None)
LAYOUTS = {
    "NCHW": lambda: torch.randn(3, 4, 5, 2),
    "channels_last": lambda: torch.randn(3, 4, 5, 2).to(memory_format=torch.channels_last),
    "NC": lambda: torch.randn(3, 40),
    "batch inside": lambda: torch.randn(4, 5, 3).permute(2, 0, 1),
    "sliced": lambda: torch.randn(3, 8, 9)[:, ::2, 1:],
    "expanded": lambda: torch.randn(1, 4, 9).expand(3, 4, 9).clone(memory_format=torch.preserve_format),
    "empty": lambda: torch.randn(0, 3),
    "empty samples": lambda: torch.randn(3, 0, 2),
}


@pytest.fixture
def small_tiles(monkeypatch):
    """So that there are many, and a tail."""
    from sat_kernels.triton_kernels import latent_operators, operators

    monkeypatch.setattr(operators, "TILE", 32)
    monkeypatch.setattr(latent_operators, "L2_TILE", 32)


def activation(name, numbers, dtype=torch.float32, channels=1):
    """What the operators take for it."""
    given = tensors(name, numbers, dtype, channels)
    missing = [None if ACTIVATIONS[name].learnable else 0.0] * (2 - len(given))
    a, b = (*given, *missing)
    return (name, 0.0, 0.0, a, b) if ACTIVATIONS[name].learnable else (name, a, b, None, None)


def perturbed(shape=(3, 4, 30), dtype=torch.float32, seed=0):
    """grad, z, delta."""
    generator = torch.Generator().manual_seed(seed)
    grad, z, delta = (torch.randn(shape, generator=generator) * size for size in (1, 2, 0.1))
    return grad.to(dtype), z.to(dtype), delta.to(computed_in(dtype))


def expected_gradient(name, numbers, grad, z, delta):
    """In float64, where z + delta is rounded as the kernels do."""
    return grad.double() * derivative64(name, rounded(numbers, z.dtype), z.to(delta.dtype) + delta, 1)


# Of results. The interpreter rounds bfloat16 towards zero.
ROUNDING = {torch.float32: 2e-6, torch.float64: 4e-15, torch.bfloat16: 2**-7, torch.float16: 2**-10}


def step(norm, *arguments):
    operator(f"act_backward_pgd_step_{norm}_")(*arguments)


def check_close(found, expected):
    error = ROUNDING[found.dtype]
    torch.testing.assert_close(found.double(), expected, rtol=error, atol=error / 8, check_stride=False)


def check_linf(found, gradient, delta, eps, alpha):
    """Element for element, wherever the gradient's sign is certain. eps, alpha: to broadcast, in delta's dtype."""
    certain = (gradient.abs() > 1e-5) | (gradient == 0)
    assert certain.double().mean() > 0.4
    moved = delta + torch.where(
        gradient == 0, torch.zeros(()).to(delta), alpha.expand_as(delta) * gradient.sign().to(delta)
    )
    wanted = moved.maximum(-eps).minimum(eps)
    assert torch.equal(found[certain], wanted[certain])


def check_l2(found, gradient, delta, eps, alpha):
    """eps, alpha: (samples,)."""
    report = check_feasible(found, torch.zeros_like(found), eps.double(), "L2", -math.inf, math.inf)
    assert report.violations == 0, report
    g, d = gradient.flatten(1), delta.double().flatten(1)
    d = d + alpha.double()[:, None] * g / g.norm(dim=1, keepdim=True).clamp(min=1e-300)
    wanted = d * (eps.double() / d.norm(dim=1)).clamp(max=1)[:, None]
    tolerance = 3e-6 if found.dtype == torch.float32 else 1e-13
    torch.testing.assert_close(found.double().flatten(1), wanted, rtol=tolerance, atol=tolerance)


def check_step(norm, found, gradient, delta, eps, alpha):
    sizes = (torch.tensor(v, dtype=delta.dtype) for v in (eps, alpha))
    if norm == "linf":
        check_linf(found, gradient, delta, *sizes)
    else:
        check_l2(found, gradient, delta, *(v.expand(len(delta)) for v in sizes))


def check_gradient_and_steps(gradient, grad, z, delta, rest):
    found = operator("act_perturbed_backward")(grad, z, delta, *rest)
    assert found.dtype == z.dtype
    check_close(found, gradient)
    for norm, eps, alpha in (("linf", 0.1, 0.05), ("l2", 1.0, 0.4)):
        moved, grad_z = delta.clone(), torch.empty_like(z)
        step(norm, grad, z, moved, *rest, eps, alpha, None, None, *UNBOUNDED, grad_z)
        check_step(norm, moved, gradient, delta, eps, alpha)
        check_close(grad_z, gradient)


@pytest.mark.parametrize(("name", "numbers"), dict(reversed(CASES)).items(), ids=str)
def test_every_activation(name, numbers):
    grad, z, delta = perturbed()
    rest = activation(name, numbers)
    at = (z + delta).double()
    found = operator("act_perturbed")(z, delta, *rest)
    check_close(found, float64(name, rounded(numbers, z.dtype), at))
    check_gradient_and_steps(expected_gradient(name, numbers, grad, z, delta), grad, z, delta, rest)


@pytest.mark.parametrize("name", ["silu", "smu"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_types(name, dtype):
    numbers = {"silu": (), "smu": (0.25, 1.3)}[name]
    grad, z, delta = perturbed(dtype=dtype)
    rest = activation(name, numbers, dtype, 4)
    found = operator("act_perturbed")(z, delta, *rest)
    assert found.dtype == dtype
    check_close(found, float64(name, rounded(numbers, dtype), (z.to(delta.dtype) + delta).double()))
    check_gradient_and_steps(expected_gradient(name, numbers, grad, z, delta), grad, z, delta, rest)


def test_the_l2_direction_is_not_rounded_to_16_bits():
    grad, z, delta = perturbed(dtype=torch.float16)
    moved = torch.zeros_like(delta)
    step("l2", grad, z, moved, *activation("gelu", ()), 10.0, 1.0, None, None, *UNBOUNDED, None)
    gradient = expected_gradient("gelu", (), grad, z, torch.zeros_like(delta)).flatten(1)
    wanted = gradient / gradient.norm(dim=1, keepdim=True)
    torch.testing.assert_close(moved.flatten(1).double(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(small_tiles, layout, dtype):
    """With numbers per sample and channel, and parameters per channel."""
    torch.manual_seed(0)
    z = LAYOUTS[layout]().to(dtype)
    grad, delta = torch.randn(z.shape, dtype=dtype), torch.empty_like(z).copy_(torch.randn(z.shape) * 0.1)
    samples, channels = z.shape[:2]
    betas = torch.linspace(0.5, 1.5, channels).to(dtype)
    rest = ("swish", 0.0, 0.0, betas, None)
    expanded = betas.double().reshape(-1, *(1,) * (z.dim() - 2)).expand(z.shape)
    at = (z + delta).double().requires_grad_()
    value = at * torch.sigmoid(expanded * at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    gradient = slope * grad.double()
    found = operator("act_perturbed")(z, delta, *rest)
    if layout != "sliced":
        assert found.stride() == z.stride()
    check_close(found, value.detach())
    check_close(operator("act_perturbed_backward")(grad, z, delta, *rest), gradient)
    ones = (1,) * (z.dim() - 2)
    each, channel = torch.rand(samples, channels, dtype=dtype) * 0.1, torch.rand(1, channels, dtype=dtype) * 0.1
    for target in (delta, delta.contiguous()) if layout in ("channels_last", "batch inside") else (delta,):
        moved, grad_z = target.clone(memory_format=torch.preserve_format), torch.empty(z.shape, dtype=dtype)
        step("linf", grad, z, moved, *rest, 9.0, 9.0, each, channel, *UNBOUNDED, grad_z)
        if z.numel():
            check_linf(moved, gradient, delta, each.reshape(samples, channels, *ones), channel.reshape(1, -1, *ones))
        check_close(grad_z, gradient)
        eps, alpha = torch.rand(samples, 1, dtype=dtype) + 0.1, torch.rand(1, 1, dtype=dtype)
        moved, grad_z = target.clone(memory_format=torch.preserve_format), torch.empty(z.shape, dtype=dtype)
        step("l2", grad, z, moved, *rest, 9.0, 9.0, eps, alpha, *UNBOUNDED, grad_z)
        if z.numel():
            check_l2(moved, gradient, delta, eps[:, 0], alpha[0].expand(samples))
        check_close(grad_z, gradient)


@pytest.mark.parametrize("shape", [(2, 1), (1, 33), (3, 1, 47), (2, 3, 31)])
def test_sizes(small_tiles, shape):
    """Whole tiles and tails, of samples that begin anywhere."""
    grad, z, delta = perturbed(shape)
    gradient = expected_gradient("mish", (), grad, z, delta)
    rest = activation("mish", ())
    check_close(operator("act_perturbed_backward")(grad, z, delta, *rest), gradient)
    for norm, of in itertools.product(("linf", "l2"), (None, torch.full((shape[0], 1), 0.125))):
        moved = delta.clone()
        step(norm, grad, z, moved, *rest, 0.125, 0.0625, of, None, *UNBOUNDED, None)
        check_step(norm, moved, gradient, delta, 0.125, 0.0625)


def outside(moved, z, lo, hi):
    """How many elements of z + moved are, in exact arithmetic."""
    numbers = zip(*(t.expand(z.shape).flatten().tolist() for t in (moved, z, lo, hi)), strict=True)
    count = 0
    for d, at, least, most in numbers:
        total = Fraction(d) + Fraction(at)
        count += (math.isfinite(least) and total < Fraction(least)) or (math.isfinite(most) and total > Fraction(most))
    return count


BOUNDS = {
    "numbers": lambda: (torch.tensor(-0.7), torch.tensor(0.9)),
    "one of them": lambda: (torch.tensor(-0.4), torch.tensor(math.inf)),
    "per channel": lambda: (-torch.rand(1, 4, 1), torch.rand(1, 4, 1)),
    "per sample": lambda: (-torch.rand(3, 1, 1), torch.tensor([0.9, math.inf, 0.3]).reshape(3, 1, 1)),
    "each": lambda: (-torch.rand(3, 4, 1), torch.tensor(0.9)),
}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, torch.float32) for kind in BOUNDS), ("numbers", torch.float64), ("per channel", torch.float16)],
)
def test_bounds(norm, kind, dtype):
    torch.manual_seed(0)
    shape, compute = (3, 4, 40), computed_in(dtype)
    lo, hi = (t.to(compute) for t in BOUNDS[kind]())
    z = torch.randn(shape)
    z[:, :, :10] *= 2.0 ** -torch.arange(10.0, 30.0, 2.0)  # z + delta would be rounded
    z = z.to(dtype)
    z = z.where((z >= lo) & (z <= hi), torch.zeros((), dtype=dtype))
    delta, grad = (torch.randn(shape) * 0.1).to(compute), torch.randn(shape).to(dtype)
    numbers = [t.item() if t.dim() == 0 else 0.0 for t in (lo, hi)]
    of = [None if t.dim() == 0 else t.squeeze(-1) for t in (lo, hi)]
    free, found = delta.clone(), delta.clone()
    for bounds, moved in ((UNBOUNDED, free), ((*numbers, *of), found)):
        step(
            norm,
            grad,
            z,
            moved,
            *activation("silu", ()),
            9.0,
            {"linf": 0.4, "l2": 5.0}[norm],
            None,
            None,
            *bounds,
            None,
        )
    assert outside(free, z, lo, hi) > 30
    assert outside(found, z, lo, hi) == 0
    assert (found * free >= 0).all()
    assert (found.abs() <= free.abs()).all()
    # But as far as the bounds are.
    cut = found != free
    further = torch.nextafter(found, free)
    assert outside(further[cut], z[cut], lo.expand(shape)[cut], hi.expand(shape)[cut]) == cut.sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_without_direction(norm):
    """NaN and 0 make no step; NaN of z is one."""
    grad, z, delta = perturbed((1, 6))
    grad[0, :2] = torch.tensor([math.nan, 0.0])
    z[0, 2] = math.nan
    moved = delta.clone()
    step(norm, grad, z, moved, *activation("silu", ()), 9.0, 0.5, None, None, *UNBOUNDED, None)
    assert torch.equal(moved[0, :3], delta[0, :3])
    assert (moved[0, 3:] != delta[0, 3:]).all()


def test_samples_of_more_than_32_bits_can_count(monkeypatch):
    """Their elements' channels are found by 64-bit divisions, with the same results."""
    import triton
    import triton.language as tl

    from sat_kernels.triton_kernels import latent, latent_operators

    @triton.jit
    def channels_from(out, begin, channels, inner, CHANNEL: tl.constexpr):
        within = begin + tl.arange(0, 16)
        tl.store(out + tl.arange(0, 16), CHANNEL(within, channels, inner, True))

    out, begin = torch.empty(16, dtype=torch.int64), 2**33 + 5
    channels_from[(1,)](out, begin, 7, 3, latent._channel)
    assert out.tolist() == [(begin + i) // 3 % 7 for i in range(16)]
    assert latent_operators._wide(2**32)
    assert not latent_operators._wide(2**32 - 1)
    grad, z, delta = perturbed((2, 3, 5))
    rest = ("swish", 0.0, 0.0, torch.linspace(0.5, 1.5, 3), None)
    found = []
    for wide in (False, True):
        monkeypatch.setattr(latent_operators, "_wide", lambda size, wide=wide: wide)
        moved = [delta.clone() for _ in range(2)]
        for norm, d in zip(("linf", "l2"), moved, strict=True):
            step(norm, grad, z, d, *rest, 0.1, 0.1, None, None, *UNBOUNDED, None)
        found.append([operator("act_perturbed")(z, delta, *rest), *moved])
    for narrow, wide in zip(*found, strict=True):
        assert torch.equal(narrow, wide)


def wrong_calls():
    z, other, one = torch.randn(4, 3), torch.randn(4, 4), torch.ones(1)
    silu, three = ("silu", 0.0, 0.0, None, None), torch.ones(3, 1)
    forward = operator("act_perturbed")
    yield "delta differs in shape from z", forward, (z, other, *silu)
    yield "delta: expected float64 for float64 z", forward, (z, z.double(), *silu)
    yield "delta: expected float64 for float64 z", forward, (z.double(), z, *silu)
    yield "expected a float32", forward, (z.int(), z, *silu)
    yield "activation=relu: expected one of silu", forward, (z, z, "relu", *silu[1:])
    yield "a_of, b_of: 0 tensors for swish: expected 1", forward, (z, z, "swish", *silu[1:])
    yield "a_of, b_of: 1 tensors for silu: expected 0", forward, (z, z, *silu[:3], one, None)
    yield "parameters: expected one element", forward, (z, z, "swish", 0.0, 0.0, torch.ones(4), None)
    yield "grad differs in dtype from z", operator("act_perturbed_backward"), (z.half(), z, z, *silu)
    for change, problem in (
        ({0: other}, "grad differs in shape from z"),
        ({0: z.double()}, "grad differs in dtype from z"),
        ({2: z.double()}, "delta: expected float64"),
        ({10: three}, "eps_of: expected"),
        ({11: torch.ones(4, 1).double()}, "alpha_of: expected"),
        ({14: one}, "lo_of: expected"),
        ({15: three}, "hi_of: expected"),
        ({16: z.half()}, "grad_z differs in dtype from z"),
    ):
        arguments = [z, z, z.clone(), *silu, 0.1, 0.1, None, None, *UNBOUNDED, None]
        for i, value in change.items():
            arguments[i] = value
        yield problem, operator("act_backward_pgd_step_linf_"), tuple(arguments)


def test_errors():
    for problem, call, arguments in wrong_calls():
        with pytest.raises(RuntimeError, match=problem):
            call(*arguments)
