"""Learnable parameters under torch.func transforms, forward mode and batched gradients.

Expected is what loops over plain first and second derivatives give, and these are checked by finite differences.
"""

import pytest
import torch
from torch.autograd import forward_ad as fwd
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, stack_module_state, vmap

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS

LEARNABLE = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if row.learnable]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def module_of(row, shift=0.0):
    cls = getattr(nn, row.module)
    module = cls(learnable=True)
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.fill_(0.8 - 0.2 * i - shift)
    assert list(module.parameters())
    return module


def function_of(module):
    """The module as a function of input and parameters, and those."""
    names = [name for name, _ in module.named_parameters()]

    def call(x, *values):
        return functional_call(module, dict(zip(names, values, strict=True)), (x,))

    return call, tuple(module.parameters())


def points(*shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3 + 0.1
    return x * torch.where(torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0)


def loss(y):
    return y.sin().sum()


def gradients(call, x, parameters, **kwargs):
    variables = [v.detach().requires_grad_() for v in (x, *parameters)]
    return torch.autograd.grad(loss(call(*variables)), variables, **kwargs), variables


def hessian_by_loops(call, x, parameters):
    """Second derivatives of the loss with respect to the parameters."""
    first, variables = gradients(call, x, parameters, create_graph=True)
    rows = [torch.autograd.grad(e, variables[1:], retain_graph=True) for g in first[1:] for e in g.flatten()]
    return torch.stack([torch.cat([t.flatten() for t in row]) for row in rows])


def flat_hessian(blocks, parameters):
    rows = [
        torch.cat([b.reshape(p.numel(), q.numel()) for b, q in zip(row, parameters, strict=True)], 1)
        for row, p in zip(blocks, parameters, strict=True)
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("row", LEARNABLE)
def test_by_finite_differences(row):
    call, parameters = function_of(module_of(row))
    x = points(7).requires_grad_()
    assert gradcheck(call, (x, *parameters), check_batched_grad=True, check_forward_ad=True)
    assert gradgradcheck(call, (x, *parameters), check_batched_grad=True)


@pytest.mark.parametrize("x_dim", [None, 0])
@pytest.mark.parametrize("row", LEARNABLE)
def test_stacked_parameters(row, x_dim):
    modules = [module_of(row, shift) for shift in (0.0, 0.1, -0.1)]
    stacked, buffers = stack_module_state(modules)
    xs = points(3, 2, 5)
    x = xs if x_dim == 0 else xs[0]

    def call(values, buffers, x):
        return functional_call(modules[0], (values, buffers), (x,))

    each = [xs[i if x_dim == 0 else 0] for i in range(3)]
    found = vmap(call, in_dims=(0, 0, x_dim))(stacked, buffers, x)
    torch.testing.assert_close(found, torch.stack([m(x) for m, x in zip(modules, each, strict=True)]))
    found = vmap(grad(lambda *a: loss(call(*a))), in_dims=(0, 0, x_dim))(stacked, buffers, x)
    for i, (m, x) in enumerate(zip(modules, each, strict=True)):
        expected, _ = gradients(*(lambda call, p, x=x: (call, x, p))(*function_of(m)))
        torch.testing.assert_close([t[i] for t in found.values()], list(expected[1:]))


@pytest.mark.parametrize("row", LEARNABLE)
def test_gradients_per_sample(row):
    call, parameters = function_of(module_of(row))
    xs, numbers = points(4, 5), tuple(range(1, len(parameters) + 1))
    per_sample = vmap(grad(lambda *a: loss(call(*a)), argnums=(0, *numbers)), in_dims=(0, *(None for _ in numbers)))
    expected = [gradients(call, x, parameters)[0] for x in xs]
    torch.testing.assert_close(per_sample(xs, *parameters), tuple(map(torch.stack, zip(*expected, strict=True))))


@pytest.mark.parametrize("second", [jacfwd, jacrev])
@pytest.mark.parametrize("first", [jacfwd, jacrev])
@pytest.mark.parametrize("row", LEARNABLE)
def test_hessian(row, first, second):
    call, parameters = function_of(module_of(row))
    x, numbers = points(6), tuple(range(1, len(parameters) + 1))
    found = second(first(lambda *a: loss(call(*a)), argnums=numbers), argnums=numbers)(x, *parameters)
    torch.testing.assert_close(flat_hessian(found, parameters), hessian_by_loops(call, x, parameters))


@pytest.mark.parametrize("way", ["jvp", "dual"])
@pytest.mark.parametrize("row", LEARNABLE)
def test_tangents_of_the_parameters_alone(row, way):
    call, parameters = function_of(module_of(row))
    x, tangents = points(6), [torch.full_like(p, 0.5 + i) for i, p in enumerate(parameters)]
    if way == "jvp":
        value, tangent = jvp(lambda *p: loss(call(x, *p)), parameters, tuple(tangents))
    else:
        with fwd.dual_level():
            duals = map(fwd.make_dual, parameters, tangents)
            value, tangent = fwd.unpack_dual(loss(call(x, *duals)))
    expected, _ = gradients(call, x, parameters)
    torch.testing.assert_close(value, loss(call(x, *parameters)))
    torch.testing.assert_close(tangent, sum((g * t).sum() for g, t in zip(expected[1:], tangents, strict=True)))


def backward(row):
    module, x = module_of(row), points(3, 4).requires_grad_()
    y, inputs = module(x), (x, *module.parameters())
    return lambda g: torch.autograd.grad(y, inputs, g, retain_graph=True), y, inputs


def double_backward(row):
    module, x, g = module_of(row), points(3, 4).requires_grad_(), points(3, 4).requires_grad_()
    inputs = (g, x, *module.parameters())
    slope = torch.autograd.grad(module(x), x, g, create_graph=True)[0]
    return lambda gg: torch.autograd.grad(slope, inputs, gg, retain_graph=True), slope, inputs


@pytest.mark.parametrize("order", [backward, double_backward])
@pytest.mark.parametrize("row", LEARNABLE)
def test_backward_inside_a_transform(row, order):
    linear, y, inputs = order(row)
    g, t = points(3, 4).cos(), points(3, 4).sin()
    expected = linear(g), linear(t)
    torch.testing.assert_close(jvp(linear, (g,), (t,)), expected)
    with fwd.dual_level():
        pairs = [fwd.unpack_dual(v) for v in linear(fwd.make_dual(g, t))]
    torch.testing.assert_close(tuple(zip(*pairs, strict=True)), expected)
    stacked = tuple(map(torch.stack, zip(*expected, strict=True)))
    torch.testing.assert_close(vmap(linear)(torch.stack([g, t])), stacked)
    found = torch.autograd.grad(y, inputs, torch.stack([g, t]), is_grads_batched=True, create_graph=True)
    torch.testing.assert_close(found, stacked)
    plain = (torch.autograd.grad(y, inputs, v, create_graph=True) for v in (g, t))
    following = [
        torch.autograd.grad(sum(v.sin().sum() for v in values), inputs, retain_graph=True, materialize_grads=True)
        for values in (found, map(torch.stack, zip(*plain, strict=True)))
    ]
    torch.testing.assert_close(*following)
