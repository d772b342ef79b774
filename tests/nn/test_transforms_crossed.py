"""Graphs made outside a transform or dual level and differentiated inside of it, and batched gradients."""

import inspect

import pytest
import torch
from torch.autograd import forward_ad as fwd
from torch.func import jvp, vjp, vmap
from torch.utils._pytree import tree_leaves

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def arguments_of(row):
    return inspect.signature(getattr(nn, row.module)).parameters


CASES = [
    pytest.param(row, inplace, id=f"{row.name}{'_' * inplace}")
    for row in ACTIVATIONS.values()
    for inplace in (False, True)
    if not inplace or "inplace" in arguments_of(row)
]


def ours(row, inplace):
    module = getattr(nn, row.module)(**row.module_arguments, **({"inplace": True} if inplace else {}))
    return (lambda x: module(x * 1)) if inplace else module


def plain(row, inplace):
    if hasattr(torch.nn, row.module):
        module = getattr(torch.nn, row.module)(**row.module_arguments, **({"inplace": True} if inplace else {}))
        return (lambda x: module(x * 1)) if inplace else module
    numbers = [torch.tensor(v) if row.learnable else v for v in row.defaults]
    return lambda x: row.reference(x, *numbers)


def points(*shape):
    """Away from 0, where some have no second derivative; also where a great sharpness makes none of it negligible."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64, generator=generator) * 3 + 0.01
    return x * torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)


def dual(function, value, tangent):
    with fwd.dual_level():
        found = function(fwd.make_dual(value, tangent))
        found = found if isinstance(found, tuple) else (found,)
        return tuple(zip(*(fwd.unpack_dual(t) for t in found), strict=True))


# A backward is linear in the gradient that enters. Here the graph is made outside a transform or dual level, and
# that gradient inside of it; what must come out takes neither transforms nor duals to compute.


def backward(f, x):
    y = f(x)
    return lambda g: torch.autograd.grad(y, x, g, retain_graph=True)


def double_backward(f, x):
    g = points(4, 3).t().requires_grad_()
    slope = torch.autograd.grad(f(x), x, g, create_graph=True)
    return lambda gg: torch.autograd.grad(slope, (g, x), gg, retain_graph=True, materialize_grads=True)


def differentiable_backward(f, x):
    y = f(x)
    return lambda g: torch.autograd.grad(y, x, g, create_graph=True)


def each(linear, *gs):
    return tuple(torch.stack(t) for t in zip(*map(linear, gs), strict=True))


LINEAR = {
    "dual": (lambda linear, g, t: dual(linear, g, t), lambda linear, g, t: (linear(g), linear(t))),
    "jvp": (lambda linear, g, t: jvp(linear, (g,), (t,)), lambda linear, g, t: (linear(g), linear(t))),
    "jvp of vmap": (
        lambda linear, g, t: jvp(vmap(linear), (torch.stack([g, t]),), (torch.stack([t, g]),)),
        lambda linear, g, t: (each(linear, g, t), each(linear, t, g)),
    ),
    "vmap": (lambda linear, g, t: vmap(linear)(torch.stack([g, t])), each),
    "vmap -1": (lambda linear, g, t: vmap(linear, in_dims=-1)(torch.stack([g, t], -1)), each),
    "vmap of jvp": (
        lambda linear, g, t: vmap(lambda g, t: jvp(linear, (g,), (t,)))(torch.stack([g, t]), torch.stack([t, g])),
        lambda linear, g, t: (each(linear, g, t), each(linear, t, g)),
    ),
}


# The same, going on to differentiate what came out.


def batched(x):
    return torch.stack([x.cos(), x.sin(), x]).detach()


def dual_then_backward(f, x, g):
    with fwd.dual_level():
        y, tangent = fwd.unpack_dual(f(fwd.make_dual(x, g)))
    return torch.autograd.grad((y * tangent).sum(), (x, g))


def dual_backward_then_backward(f, x, g):
    with fwd.dual_level():
        slope = differentiable_backward(f, x)(fwd.make_dual(g, g.cos()))[0]
        value, tangent = fwd.unpack_dual(slope)
    return torch.autograd.grad((value * tangent).sum(), (x, g))


CROSSED = {
    "dual": lambda f, x, g: dual(f, x, g),
    "no dual in a dual level": lambda f, x, g: dual(lambda t: (f(x), torch.autograd.grad(f(x).sum(), x)[0]), x, g),
    "dual, then backward": dual_then_backward,
    "backward of a dual, then backward": dual_backward_then_backward,
    "vjp of backward": lambda f, x, g: vjp(differentiable_backward(f, x), g)[1]((x.cos(),)),
    "jvp of backward, then backward": lambda f, x, g: torch.autograd.grad(
        jvp(differentiable_backward(f, x), (g,), (x.cos(),))[1][0].sin().sum(), x
    ),
    "vmap of backward, then backward": lambda f, x, g: torch.autograd.grad(
        vmap(differentiable_backward(f, x))(batched(x))[0].sin().sum(), x
    ),
    "vjp of backward, then backward": lambda f, x, g: torch.autograd.grad(
        vjp(differentiable_backward(f, x), g)[1]((x.cos(),))[0].sin().sum(), x
    ),
    "batched": lambda f, x, g: torch.autograd.grad(f(x), x, batched(x), is_grads_batched=True),
    "batched, second order": lambda f, x, g: torch.autograd.grad(
        torch.autograd.grad(f(x), x, g, create_graph=True)[0], (x, g), batched(x), is_grads_batched=True
    ),
    "batched, then backward": lambda f, x, g: torch.autograd.grad(
        torch.autograd.grad(f(x), x, batched(x), is_grads_batched=True, create_graph=True)[0].sin().sum(), x
    ),
}


@pytest.mark.parametrize("transform", LINEAR)
@pytest.mark.parametrize("order", [backward, double_backward, differentiable_backward])
@pytest.mark.parametrize(("row", "inplace"), CASES)
def test_backward_inside_a_transform(row, inplace, order, transform):
    x = points(3, 4).requires_grad_()
    (transformed, expect), g, t = LINEAR[transform], x.detach().cos(), x.detach().sin()
    found, expected = transformed(order(ours(row, inplace), x), g, t), expect(order(plain(row, inplace), x), g, t)
    # A graph that nobody asked for would outlive the backward.
    assert {v.requires_grad for v in tree_leaves(found)} == {order is differentiable_backward}
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("crossing", CROSSED)
@pytest.mark.parametrize(("row", "inplace"), CASES)
def test_graph_crosses_a_transform(row, inplace, crossing):
    x, g = points(3, 4).requires_grad_(), points(4, 3).t().requires_grad_()
    found, expected = (CROSSED[crossing](make(row, inplace), x, g) for make in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
