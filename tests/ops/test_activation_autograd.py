"""Autograd around the activations' kernels: every order, compositions, learnable parameters, in-place."""

import pytest
import torch

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.functional import silu
from sat_kernels.ops.activation import activate, has_kernel


def tensors(row, numbers, dtype=torch.float32):
    return tuple(torch.tensor(v, dtype=dtype) for v in numbers) if row.learnable else numbers


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives(name):
    torch.manual_seed(1)
    row = ACTIVATIONS[name]
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    numbers = row.defaults if name != "smooth_relu" else (4.0,)
    parameters = tuple(p.requires_grad_() for p in tensors(row, numbers, torch.float64)) if row.learnable else numbers

    def function(x, *parameters):
        return activate(row, x, parameters)

    assert torch.autograd.gradcheck(function, (x, *parameters), check_batched_grad=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (x, *parameters))
    third, plain = function(x, *parameters).sum(), row.reference(x, *parameters).sum()
    for _ in range(3):
        third = torch.autograd.grad(third, x, create_graph=True)[0].sum()
        plain = torch.autograd.grad(plain, x, create_graph=True)[0].sum()
    torch.testing.assert_close(third, plain)


COMPOSITIONS = {
    "f(x)^2": lambda f, x: f(x) ** 2,
    "f(f(x))": lambda f, x: f(f(x)),
    "f(x*x)": lambda f, x: f(x * x),
    "x f(x)": lambda f, x: x * f(x),
}


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_higher_derivatives_of_compositions(name, composition):
    """Where the incoming gradient depends on the input, too, no path may be counted twice."""
    row, compose = ACTIVATIONS[name], COMPOSITIONS[composition]
    numbers = tensors(row, (4.0,) if row.learnable else row.defaults, torch.float64)
    x = torch.linspace(-1.9, 1.9, 12, dtype=torch.float64, requires_grad=True)
    found, plain = compose(lambda x: activate(row, x, numbers), x), compose(lambda x: row.reference(x, *numbers), x)
    for _ in range(4):
        found, plain = (torch.autograd.grad(y.sum(), x, create_graph=True)[0] for y in (found, plain))
        torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)

    def value(x):
        return compose(lambda x: activate(row, x, numbers), x).sum()

    def plain_value(x):
        return compose(lambda x: row.reference(x, *numbers), x).sum()

    v = torch.ones_like(x)
    torch.testing.assert_close(*(torch.autograd.functional.hvp(f, x, v)[1] for f in (value, plain_value)))


@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.learnable])
def test_a_parameter_shared_by_nested_activations(name):
    row = ACTIVATIONS[name]
    x = torch.linspace(-1.9, 1.9, 12, dtype=torch.float64, requires_grad=True)
    p = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)

    def nested(x, p):
        return activate(row, activate(row, x, (p,)), (p,))

    found = torch.autograd.grad(nested(x, p).sum(), (x, p), create_graph=True)
    plain = torch.autograd.grad(row.reference(row.reference(x, p), p).sum(), (x, p))
    torch.testing.assert_close(found, plain)
    assert torch.autograd.gradgradcheck(nested, (x, p))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.learnable])
def test_parameter_of_one_element_in_any_shape(name, shape):
    row = ACTIVATIONS[name]
    for x in (torch.tensor(0.5), torch.randn(3), torch.randn(3).bfloat16()):
        x = x.requires_grad_()
        p = torch.full(shape, 4.0, requires_grad=True)
        y = activate(row, x, (p,))
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        for create_graph in (False, True):
            grads = torch.autograd.grad(y.sum(), (x, p), create_graph=create_graph, retain_graph=True)
            assert [g.shape for g in grads] == [x.shape, p.shape]
        assert torch.func.vmap(lambda x, row=row, p=p: activate(row, x, (p,)))(x.reshape(-1)).dtype == x.dtype
    with pytest.raises(TypeError, match=r"torch.int64: expected a number or a floating tensor"):
        activate(row, x, (torch.tensor(4),))


def test_error_of_the_plain_smooth_relu():
    x, beta = torch.logspace(-4, 0, 10_001), torch.tensor(400.0)
    for dtype in (torch.float32, torch.bfloat16):
        rounded = x.to(dtype)
        t = 400 * rounded.double()
        expected = (t - torch.log1p(t)) / 400
        error = (ACTIVATIONS["smooth_relu"].reference(rounded, beta).double() - expected).abs()
        own = 0 if dtype == torch.float32 else 2**-8
        assert (error <= own * expected + 2**-22 * rounded.double()).all()


def test_failed_in_place_calls_change_nothing():
    leaf = torch.rand(4, requires_grad=True)
    expanded = torch.rand(4).expand(3, 4)
    cases = [leaf, leaf.view(2, 2), expanded]
    if has_kernel(leaf):  # torch itself does not see this one
        cases.append(torch.rand(8).as_strided((3, 4), (1, 1)))
    for x in cases:
        before = x.detach().clone()
        with pytest.raises(RuntimeError):
            silu(x, inplace=True)
        assert torch.equal(x.detach(), before)
    negative = torch.randn(3, dtype=torch.complex64).conj().imag
    expected = torch.nn.functional.silu(negative)
    torch.testing.assert_close(silu(negative, inplace=True), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.learnable])
def test_parameter_of_the_models_dtype(name, dtype):
    row = ACTIVATIONS[name]
    x = torch.randn(1000).to(dtype)
    parameter = torch.tensor(4.0, dtype=dtype, requires_grad=True)
    activate(row, x, (parameter,)).sum().backward()
    parameter64 = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    row.reference(x.double(), parameter64).sum().backward()
    assert parameter.grad.dtype == dtype
    torch.testing.assert_close(parameter.grad.double(), parameter64.grad, rtol=torch.finfo(dtype).eps * 8, atol=0)
