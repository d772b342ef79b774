"""Autograd around the activations' kernels: every order, compositions, learnable parameters, in-place."""

import contextlib

import pytest
import torch
from samples import numbers, points, tensors

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.functional import silu
from sat_kernels.ops.activation import activate, has_kernel

# Whose gradient is not its derivative: test_relu_smooth_backward.
DIFFERENTIABLE = [name for name in ACTIVATIONS if name != "relu_smooth_backward"]
LEARNABLE = [name for name, row in ACTIVATIONS.items() if row.learnable]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name):
    row, x = ACTIVATIONS[name], points(3, 4)
    parameters = tensors(row)

    def function(x, *parameters):
        return activate(row, x, parameters)

    assert torch.autograd.gradcheck(
        function,
        (x, *parameters),
        check_batched_grad=True,
        check_forward_ad=True,
        check_batched_forward_grad=True,
    )
    assert torch.autograd.gradgradcheck(
        function, (x, *parameters), check_batched_grad=True, check_fwd_over_rev=True, check_rev_over_rev=True
    )
    third, plain = function(x, *parameters).sum(), row.plain(x, *parameters).sum()
    for _ in range(3):
        third = torch.autograd.grad(third, x, create_graph=True)[0].sum()
        plain = torch.autograd.grad(plain, x, create_graph=True)[0].sum()
    torch.testing.assert_close(third, plain)


def test_relu_smooth_backward():
    """The rule grad * sigmoid(alpha x), and the derivatives of that rule."""
    row, alpha, x = ACTIVATIONS["relu_smooth_backward"], 1.5, points(12)
    y = activate(row, x, (alpha,))
    assert torch.equal(y, x.relu())
    grad = torch.linspace(-2, 3, 12, dtype=torch.float64, requires_grad=True)
    for transform in (lambda f: f, torch.func.vmap):

        def rule(x, grad, transform=transform):
            return torch.autograd.grad(transform(lambda x: activate(row, x, (alpha,)))(x), x, grad, create_graph=True)[
                0
            ]

        torch.testing.assert_close(rule(x, grad), grad * torch.sigmoid(alpha * x))
        assert torch.autograd.gradcheck(rule, (x, grad))
        assert torch.autograd.gradgradcheck(rule, (x, grad))
    tangent = torch.linspace(1, 2, 12, dtype=torch.float64)
    value, directional = torch.func.jvp(lambda x: activate(row, x, (alpha,)), (x.detach(),), (tangent,))
    assert torch.equal(value, x.detach().relu())
    torch.testing.assert_close(directional, tangent * torch.sigmoid(alpha * x.detach()))
    jacobian = torch.func.jacfwd(torch.func.jacrev(lambda x: activate(row, x, (alpha,)).sum()))(x.detach())
    s = torch.sigmoid(alpha * x.detach())
    torch.testing.assert_close(jacobian, (alpha * s * (1 - s)).diag())


COMPOSITIONS = {
    "f(x)^2": lambda f, x: f(x) ** 2,
    "f(f(x))": lambda f, x: f(f(x)),
    "f(x*x)": lambda f, x: f(x * x),
    "x f(x)": lambda f, x: x * f(x),
}


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_higher_derivatives_of_compositions(name, composition):
    """Where the incoming gradient depends on the input, too, no path may be counted twice."""
    row, compose = ACTIVATIONS[name], COMPOSITIONS[composition]
    numbers = tensors(row)
    x = torch.linspace(-1.9, 1.9, 12, dtype=torch.float64, requires_grad=True)
    found, plain = compose(lambda x: activate(row, x, numbers), x), compose(lambda x: row.plain(x, *numbers), x)
    for _ in range(4):
        found, plain = (torch.autograd.grad(y.sum(), x, create_graph=True)[0] for y in (found, plain))
        torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)

    def value(x):
        return compose(lambda x: activate(row, x, numbers), x).sum()

    def plain_value(x):
        return compose(lambda x: row.plain(x, *numbers), x).sum()

    v = torch.ones_like(x)
    torch.testing.assert_close(*(torch.autograd.functional.hvp(f, x, v)[1] for f in (value, plain_value)))


@pytest.mark.parametrize("name", LEARNABLE)
def test_a_parameter_shared_by_nested_activations(name):
    row, x = ACTIVATIONS[name], points(12)
    parameters = tensors(row)

    def nested(x, *parameters):
        return activate(row, activate(row, x, parameters), parameters)

    found = torch.autograd.grad(nested(x, *parameters).sum(), (x, *parameters), create_graph=True)
    plain = torch.autograd.grad(row.plain(row.plain(x, *parameters), *parameters).sum(), (x, *parameters))
    torch.testing.assert_close(found, plain)
    assert torch.autograd.gradgradcheck(nested, (x, *parameters))


@pytest.mark.parametrize("name", LEARNABLE)
def test_a_penalty_on_the_input_gradient_reaches_the_parameters(name):
    row, x = ACTIVATIONS[name], points(12)
    results = []
    for function in (lambda x, *p: activate(row, x, p), row.plain):
        parameters = tensors(row)
        (slope,) = torch.autograd.grad(function(x, *parameters).sum(), x, create_graph=True)
        slope.square().sum().backward()
        results.append([p.grad for p in parameters])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", LEARNABLE)
def test_freezing_between_forward_and_backward(name):
    row, x = ACTIVATIONS[name], points(12)
    parameters = tensors(row)
    y = activate(row, x, parameters).sum()
    for p in parameters:
        p.requires_grad_(False)
    (found,) = torch.autograd.grad(y, x, create_graph=True)
    (expected,) = torch.autograd.grad(row.plain(x, *parameters).sum(), x, create_graph=True)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(g.sum(), x) for g in (found, expected)))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("name", LEARNABLE)
def test_parameters_of_one_element_in_any_shape(name, shape):
    row = ACTIVATIONS[name]
    for x in (torch.tensor(0.5), torch.randn(3), torch.randn(3).bfloat16()):
        x = x.requires_grad_()
        parameters = tuple(torch.full(shape, v, requires_grad=True) for v in numbers(row))
        y = activate(row, x, parameters)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)
        for create_graph in (False, True):
            grads = torch.autograd.grad(y.sum(), (x, *parameters), create_graph=create_graph, retain_graph=True)
            assert [g.shape for g in grads] == [x.shape, *(p.shape for p in parameters)]
        assert torch.func.vmap(lambda x, row=row, p=parameters: activate(row, x, p))(x.reshape(-1)).dtype == x.dtype
    with pytest.raises(TypeError, match=r"torch.int64: expected a number or a floating tensor"):
        activate(row, x, (torch.tensor(4),) * len(parameters))


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
    for view in (lambda z: z[:2], lambda z: z.unbind(0)[0]):
        whole = torch.ones(3, 2, requires_grad=True) * 1
        with torch.no_grad() if view(whole).shape == (2, 2) else contextlib.nullcontext():
            part = view(whole)
        with pytest.raises(RuntimeError):
            silu(part, inplace=True)
        assert torch.equal(whole.detach(), torch.ones(3, 2))
    with torch.inference_mode():
        inferred = torch.ones(3)
    with pytest.raises(RuntimeError, match="inference"):
        silu(inferred, inplace=True)
    assert torch.equal(inferred, torch.ones(3))
    negative = torch.randn(3, dtype=torch.complex64).conj().imag
    expected = torch.nn.functional.silu(negative)
    torch.testing.assert_close(silu(negative, inplace=True), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", LEARNABLE)
def test_parameters_of_the_models_dtype(name, dtype):
    torch.manual_seed(0)
    row, x = ACTIVATIONS[name], torch.randn(1000).to(dtype)
    parameters = tuple(torch.tensor(v, dtype=dtype, requires_grad=True) for v in numbers(row))
    grads = torch.autograd.grad(activate(row, x, parameters).sum(), parameters)
    wide = tuple(p.detach().double().requires_grad_() for p in parameters)
    expected = torch.autograd.grad(row.plain(x.double(), *wide).sum(), wide)
    for grad, right in zip(grads, expected, strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.double(), right, rtol=torch.finfo(dtype).eps * 8, atol=1e-6 * 1000**0.5)
