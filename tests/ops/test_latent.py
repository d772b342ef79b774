"""Activations of perturbed inputs and steps of the perturbation, against float64 and in exact arithmetic."""

import math

import fused
import pytest
import torch
from raw import needs_extension
from samples import numbers as sample_numbers
from samples import points
from samples import tensors as sample_tensors
from torch.library import opcheck

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import act_backward_pgd_step_, act_perturbed

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
NORMS = ["Linf", "L2"]
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
EVERY = pytest.mark.parametrize("name", ACTIVATIONS)


def computed_in(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def sample(shape, dtype, seed=0, scale=2.0, eps=0.3):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    delta = (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * eps
    grad = torch.randn(shape, generator=generator, dtype=torch.float64)
    return grad.to(dtype), z.to(dtype), delta.to(computed_in(dtype))


def tensors_of(name, dtype, channels=1):
    row = ACTIVATIONS[name]
    given = sample_numbers(row)
    if not row.learnable:
        return given
    return tuple(torch.linspace(v, 1.3 * v, channels).to(computed_in(dtype)) for v in given)


@EVERY
@TYPES
@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_gradients(name, dtype, channels):
    numbers = tensors_of(name, dtype, channels)
    shape = (2, 3, 5, 7)
    grad, z, delta = sample(shape, dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        grad, z = (t.contiguous(memory_format=layout) for t in (grad, z))
        leaves = z.clone().requires_grad_(), delta.clone().requires_grad_()
        y = act_perturbed(*leaves, (name, *numbers))
        found = torch.autograd.grad(y, leaves, grad)
        at = z.to(delta.dtype) + delta
        wanted = grad.double() * fused.slope(name, numbers, at)
        tolerance = 4 * max(torch.finfo(dtype).eps, 1e-13)
        assert y.dtype == dtype
        assert y.stride() == z.stride()
        torch.testing.assert_close(y.double(), fused.value(name, numbers, at), rtol=tolerance, atol=2 * tolerance)
        for one, leaf in zip(found, leaves, strict=True):
            assert one.dtype == leaf.dtype
            torch.testing.assert_close(one.double(), wanted, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "relu_smooth_backward"])
def test_derivatives_of_every_order(name):
    numbers = sample_tensors(ACTIVATIONS[name])
    z, delta = points(2, 4), (points(2, 4) * 0.1).detach().requires_grad_()

    def function(z, delta, *learned):
        return act_perturbed(z, delta, (name, *(learned or numbers)))

    learned = [n for n in numbers if isinstance(n, torch.Tensor)]
    for tensors in ((z, delta), (z, delta, *learned)):
        assert torch.autograd.gradcheck(function, tensors)
        if name not in ("elu", "celu", "smooth_relu"):  # their second derivative jumps
            assert torch.autograd.gradgradcheck(function, tensors)


@EVERY
@TYPES
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_steps(name, dtype, norm, channels):
    numbers, eps, alpha = tensors_of(name, dtype, channels), 0.3, 0.1
    if norm == "L2":
        eps, alpha = 2.0, 0.7
    for seed, layout in enumerate((torch.contiguous_format, torch.channels_last)):
        grad, z, delta = sample((2, 3, 5, 7), dtype, seed)
        z = z.contiguous(memory_format=layout)
        at = z.to(delta.dtype) + delta
        g = grad.double() * fused.slope(name, numbers, at)
        kept = torch.full_like(z, math.nan)
        step = {"activation": (name, *numbers), "eps": eps, "alpha": alpha, "norm": norm}
        found = act_backward_pgd_step_(grad, z, delta.clone(), grad_z=kept, **step)
        again = act_backward_pgd_step_(grad, z, delta.clone(), **step)
        assert torch.equal(found, again)
        tolerance = 4 * max(torch.finfo(dtype).eps, 1e-13)
        torch.testing.assert_close(kept.double(), g, rtol=tolerance, atol=2 * tolerance)
        wanted = (fused.linf if norm == "Linf" else fused.l2)(delta, g, eps, alpha)
        size = torch.finfo(delta.dtype).eps * (4 if norm == "Linf" else 64)
        # Of a gradient of about 0 the sign is not known.
        doubtful = (norm == "Linf") & (g.abs() <= 1e-5 * grad.double().abs())
        assert doubtful.double().mean() < 0.6  # SmoothReLU's is 0 for half of the numbers
        torch.testing.assert_close(found.double()[~doubtful], wanted[~doubtful], rtol=size, atol=size)
        zero = (found == delta) | doubtful.logical_not() | (g != 0)
        assert zero.all()


@TYPES
@pytest.mark.parametrize("norm", NORMS)
def test_sizes_and_bounds(dtype, norm):
    """Numbers, and one per sample, channel or both."""
    grad, z, delta = sample((2, 3, 5, 7), dtype)
    low, high = z.amin((2, 3), keepdim=True), z.amax((2, 3), keepdim=True)
    per_sample = torch.tensor([0.1, 0.4])
    sizes = [(0.3, 0.2), (per_sample, 0.2), (torch.tensor(0.3), per_sample.double())]
    if norm == "Linf":
        sizes += [(torch.rand(2, 3, 1, 1), torch.rand(1, 3, 1, 1)), (0.4, torch.rand(3, 1, 1))]
    at = z.to(delta.dtype) + delta
    g = grad.double() * fused.slope("silu", (), at)
    for eps, alpha in sizes:
        for lo, hi in ((None, None), (-0.5, None), (None, 0.25), (low, high), (low[:1], 9.0), (-1, high[:, :1])):
            inside = z.clone() if lo is None else torch.maximum(z, torch.as_tensor(lo, dtype=dtype))
            inside = inside if hi is None else torch.minimum(inside, torch.as_tensor(hi, dtype=dtype))
            at = inside.to(delta.dtype) + delta
            g = grad.double() * fused.slope("silu", (), at)
            step = {"activation": "silu", "eps": eps, "alpha": alpha, "norm": norm, "lo": lo, "hi": hi}
            found = act_backward_pgd_step_(grad, inside, delta.clone(), **step)

            def each(size):
                size = fused.wide(size)
                return size.view(-1, 1, 1, 1) if size.dim() == 1 else size

            free = fused.linf(delta, g, each(eps), each(alpha)) if norm == "Linf" else None
            if norm == "L2":
                free = fused.l2(delta, g, each(eps).flatten(), each(alpha).flatten())
            wanted = fused.bounded(free, inside, lo, hi)
            # A bound that the step leads to is as far from z as their difference is rounded.
            size = 64 * torch.finfo(delta.dtype).eps
            torch.testing.assert_close(found.double(), wanted, rtol=size, atol=4 * size)
            assert fused.outside(found, inside, lo, hi) == 0
            if norm == "Linf":
                assert (found.double().abs() <= each(eps).double()).all()
            else:
                assert (found.double().flatten(1).norm(dim=1) <= each(eps).double().flatten()).all()


def test_nan_and_infinity():
    z = torch.tensor([[0.5, math.nan, 0.5, 0.5, math.inf]])
    grad = torch.tensor([[math.nan, 1.0, math.inf, -math.inf, 1.0]])
    for norm, lo in ((norm, lo) for norm in NORMS for lo in (None, 0.0)):
        step = {"activation": "silu", "eps": 0.5, "alpha": 0.1, "norm": norm, "lo": lo}
        delta = act_backward_pgd_step_(grad, z, torch.zeros(1, 5), **step)
        assert delta[0, :2].tolist() == [0.0, 0.0]
        assert delta[0, 2] > 0 > delta[0, 3]


def test_layouts():
    """Sliced, permuted, expanded, empty and 0-d tensors, in and out."""
    for make in (
        lambda: torch.randn(6, 4, 10)[::2, :, ::2],
        lambda: torch.randn(4, 3, 5).permute(1, 2, 0),
        lambda: torch.randn(3, 4, 5).transpose(0, 1),
        lambda: torch.randn(()),
        lambda: torch.randn(0, 3),
        lambda: torch.randn(7),
    ):
        z, delta, grad, kept = make(), make() * 0.1, make(), make()
        y = act_perturbed(z, delta, "gelu")
        torch.testing.assert_close(y, torch.nn.functional.gelu(z + delta))
        g = grad * fused.slope("gelu", (), z + delta)
        wanted = (delta + 0.05 * g.sign()).clamp(-0.1, 0.1).float()
        act_backward_pgd_step_(grad, z, delta, activation="gelu", eps=0.1, alpha=0.05, grad_z=kept)
        torch.testing.assert_close(delta, wanted)
        torch.testing.assert_close(kept, g.float())
    z = torch.randn(1, 3).expand(4, 3)
    torch.testing.assert_close(act_perturbed(z, torch.zeros(4, 3), "silu"), torch.nn.functional.silu(z))


def test_activations_are_named_or_modules():
    z, delta = torch.randn(3, 4), torch.randn(3, 4) * 0.1
    for activation, wanted in (
        (nn.Swish(beta=1.5), ("swish", 1.5)),
        (torch.nn.GELU(approximate="tanh"), "gelu_tanh"),
        (nn.GELU(), "gelu"),
        (torch.nn.Softplus(beta=2.0), ("softplus", 2.0, 20.0)),
        (nn.PSSiLU(), "pssilu"),
        (nn.ReLUSmoothBackward(5.0), ("relu_smooth_backward", 5.0)),
    ):
        with torch.no_grad():
            assert torch.equal(act_perturbed(z, delta, activation), act_perturbed(z, delta, wanted))
    module = nn.Swish(beta=1.5)
    act_perturbed(z, delta, module).sum().backward()
    assert module.beta.grad is not None


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"activation": "relu"}, ValueError, "activation='relu': expected one of silu"),
        ({"activation": torch.nn.ReLU()}, ValueError, "activation=ReLU"),
        ({"activation": 3}, TypeError, "activation is a int"),
        ({"activation": ("swish", 1.0, 2.0)}, ValueError, "swish is given 2 numbers: expected 1 (beta)"),
        ({"eps": -1.0}, ValueError, "eps=-1.0: expected a number >= 0"),
        ({"norm": "L1"}, ValueError, "norm='L1': expected 'Linf' or 'L2'"),
        ({"lo": 1.0, "hi": 0.0}, ValueError, "lo=1.0, hi=0.0: expected lo <= hi"),
        ({"lo": torch.zeros(5)}, ValueError, "lo has shape (5,)"),
        (
            {"delta": torch.zeros(2, 3, dtype=torch.float64)},
            TypeError,
            "delta is torch.float64: expected torch.float32",
        ),
        ({"delta": torch.zeros(3)}, ValueError, "delta has shape (3,): expected z's, (2, 3)"),
        ({"grad_y": torch.zeros(2, 3).half()}, TypeError, "grad_y is torch.float16: expected z's dtype"),
        ({"z": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "z is torch.int64"),
        ({"grad_z": torch.zeros(2)}, ValueError, "grad_z has shape (2,)"),
    ],
)
def test_bad_input(changes, error, said):
    arguments = {"grad_y": torch.ones(2, 3), "z": torch.ones(2, 3), "delta": torch.zeros(2, 3)}
    arguments |= {"activation": "silu", "eps": 0.1, "alpha": 0.1} | changes
    before = arguments["delta"].clone()
    with pytest.raises(error) as raised:
        act_backward_pgd_step_(
            arguments.pop("grad_y"),
            arguments.pop("z"),
            arguments["delta"],
            **{k: v for k, v in arguments.items() if k != "delta"},
        )
    assert said in str(raised.value)
    assert torch.equal(arguments["delta"], before)


def test_delta_has_memory_of_its_own():
    z = torch.zeros(2, 3)
    for delta in (z, torch.zeros(1, 3).expand(2, 3), torch.zeros(2, 3, requires_grad=True)):
        with pytest.raises(ValueError, match="delta"):
            act_backward_pgd_step_(torch.ones(2, 3), z, delta, activation="silu", eps=0.1, alpha=0.1)


def test_versions_tell_of_the_change():
    delta = torch.zeros(2, 3, requires_grad=True)
    y = (delta * delta).sum()
    with torch.no_grad():
        act_backward_pgd_step_(torch.ones(2, 3), torch.ones(2, 3), delta, activation="silu", eps=0.1, alpha=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_compiled():
    def function(z, delta):
        return act_perturbed(z, delta, "silu") * 2

    z, delta = torch.randn(4, 5), torch.randn(4, 5)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, delta), function(z, delta))


@needs_extension
@TYPES
def test_operators(dtype):
    for z in (torch.randn(2, 3, 4), torch.randn(2, 4, 3).mT, torch.randn(2, 3, 8)[..., ::2]):
        z = z.to(dtype)
        delta = torch.zeros_like(z, dtype=computed_in(dtype))
        for numbers in (("silu", 0.0, 0.0, None, None), ("swish", 0.0, 0.0, torch.ones(1, dtype=delta.dtype), None)):
            opcheck(torch.ops.sat_kernels.act_perturbed.default, (z, delta, *numbers))
            opcheck(torch.ops.sat_kernels.act_perturbed_backward.default, (z, z, delta, *numbers))
            rest = (*numbers, 0.1, 0.1, None, None, -1.0, 1.0, None, None, torch.empty_like(z))
            for norm in ("linf", "l2"):
                operator = getattr(torch.ops.sat_kernels, f"act_backward_pgd_step_{norm}_").default
                opcheck(operator, (z, z, delta.clone(), *rest))


@needs_extension
def test_operators_refuse():
    operators, z = torch.ops.sat_kernels, torch.zeros(2, 3)
    for arguments, said in (
        ((z, z, "relu", 0.0, 0.0, None, None), "activation: 'relu' is none of the package's"),
        ((z, z, "silu", 0.0, 0.0, torch.ones(1), None), "'silu' has 0 learnable numbers"),
        ((z, z, "swish", 0.0, 0.0, torch.ones(2), None), "one for each channel"),
        ((z, z.double(), "silu", 0.0, 0.0, None, None), "delta: expected float64"),
        ((z, z[0], "silu", 0.0, 0.0, None, None), "delta differs in shape"),
    ):
        with pytest.raises(RuntimeError, match=said):
            operators.act_perturbed(*arguments)
