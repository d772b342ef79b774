"""Derivatives of every activation, of first and higher order, through autograd and torch.func."""

import functools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from sat_kernels import functional
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]
LEARNABLE = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if row.learnable]
# Not the defaults: a sharpness of 400 leaves finite differences nothing to see, and 1 hides a missing factor.
NUMBERS = {"beta": 3.0, "alpha": 1.5, "threshold": 20.0}


def function_of(row):
    if row.name == "gelu_tanh":
        return functools.partial(functional.gelu, approximate="tanh")
    return getattr(functional, row.name)


def numbers(row):
    return tuple(NUMBERS[name] for name in row.parameters)


def tensors(row):
    if not row.learnable:
        return ()
    return tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in numbers(row))


def points(*shape):
    """Away from 0, where ELU, CELU and SmoothReLU have no second derivative."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64, generator=generator) * 3 + 0.1
    return (x * torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)).requires_grad_()


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
@pytest.mark.parametrize("row", ALL)
def test_first_and_second_derivatives(row, layout):
    function, x = function_of(row), points(3, 4)
    arguments = tensors(row) or numbers(row)

    def f(x, *arguments):
        return function(x.t() if layout == "transposed" else x, *arguments)

    assert gradcheck(f, (x, *arguments))
    assert gradgradcheck(f, (x, *arguments))


@pytest.mark.parametrize("row", LEARNABLE)
def test_derivatives_for_one_of_input_and_parameter(row):
    function, x, parameters = function_of(row), points(6), tensors(row)
    for check in (gradcheck, gradgradcheck):
        assert check(lambda *p: function(x.detach(), *p), parameters)
        assert check(lambda x: function(x, *(p.detach() for p in parameters)), x)
        assert check(lambda x: function(x, *numbers(row)), x)


@pytest.mark.parametrize("row", LEARNABLE)
def test_one_element_parameter_keeps_its_shape(row):
    x, (value,) = points(6), numbers(row)
    parameter = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    y = function_of(row)(x, parameter)
    assert y.shape == x.shape
    assert torch.autograd.grad(y.sum(), parameter)[0].shape == (1,)


@pytest.mark.parametrize("row", ALL)
def test_third_derivative(row):
    x, arguments = points(8), numbers(row)
    weights = torch.linspace(0.5, 2, 8, dtype=torch.float64)

    def third(function):
        value = function(x, *arguments)
        for _ in range(3):
            (value,) = torch.autograd.grad((value * weights).sum(), x, create_graph=True)
        return value

    torch.testing.assert_close(third(function_of(row)), third(lambda x, *a: row.reference(x, *_constants(row, a))))


def _constants(row, arguments):
    return tuple(torch.tensor(a, dtype=torch.float64) for a in arguments) if row.learnable else arguments


@pytest.mark.parametrize("row", ALL)
def test_batched_gradients(row):
    x = points(5)
    y = function_of(row)(x, *numbers(row))
    (batched,) = torch.autograd.grad(y, x, torch.eye(5, dtype=torch.float64), is_grads_batched=True, retain_graph=True)
    (plain,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(batched, plain.diag())


@pytest.mark.parametrize("row", ALL)
def test_func_transforms(row):
    x, arguments = points(4, 5).detach(), numbers(row)

    def f(x):
        return function_of(row)(x, *arguments)

    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(f(leaf).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), leaf)
    first = first.detach()
    tangent = torch.randn_like(x)
    value, directional = torch.func.jvp(f, (x,), (tangent,))
    torch.testing.assert_close(value, f(x))
    torch.testing.assert_close(directional, first * tangent)
    torch.testing.assert_close(torch.func.grad(lambda x: f(x).sum())(x), first)
    torch.testing.assert_close(torch.func.vmap(f, in_dims=1)(x), f(x).t())
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(lambda x: f(x).sum()))(x), first)
    torch.testing.assert_close(torch.func.jacrev(f)(x[0]), first[0].diag())
    torch.testing.assert_close(torch.func.jacfwd(f)(x[0]), first[0].diag())
    torch.testing.assert_close(torch.func.vmap(torch.func.hessian(lambda x: f(x)))(x.flatten()), second.flatten())


@pytest.mark.parametrize("row", LEARNABLE)
def test_func_transforms_for_the_parameter(row):
    x, parameters = points(4, 5).detach(), tensors(row)
    expected = torch.autograd.grad(function_of(row)(x, *parameters).sum(), parameters)
    found = torch.func.grad(lambda p: function_of(row)(x, p).sum())(parameters[0].detach())
    torch.testing.assert_close(found, expected[0])
    per_sample = torch.func.vmap(torch.func.grad(lambda p, x: function_of(row)(x, p).sum()), in_dims=(None, 0))
    torch.testing.assert_close(per_sample(parameters[0].detach(), x).sum(), expected[0])


@pytest.mark.parametrize("row", ALL)
def test_forward_mode(row):
    x, tangent = points(5).detach(), torch.randn(5, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        y = torch.autograd.forward_ad.unpack_dual(function_of(row)(dual, *numbers(row)))
    torch.testing.assert_close(
        y.tangent, torch.func.jvp(lambda x: function_of(row)(x, *numbers(row)), (x,), (tangent,))[1]
    )


@pytest.mark.parametrize("row", LEARNABLE)
def test_wrong_parameters_are_named(row):
    (name,), function, x = row.parameters, function_of(row), torch.randn(3)
    for wrong, message in ((0.0, "> 0"), (-1.0, "> 0"), (float("nan"), "> 0"), (torch.ones(2), "one element")):
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            function(x, wrong)


def test_other_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="approximate='sigmoid'"):
        functional.gelu(torch.randn(3), approximate="sigmoid")
    with pytest.raises(RuntimeError, match="alpha"):
        functional.celu(torch.randn(3), alpha=0.0)
