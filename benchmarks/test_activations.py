"""Activations, forward and backward, 65,536 elements (in cache), one thread.

``eager`` is the composition of torch's own operators in which an activation that torch lacks is published.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops.activation import activate

SIZE = 65_536


class SmoothBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alpha):
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return F.relu(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * torch.sigmoid(ctx.alpha * x), None


EAGER = {
    "swish": lambda x, beta: x * torch.sigmoid(beta * x),
    "parametric_softplus": lambda x, alpha: F.softplus(alpha * x) / alpha,
    # As in the authors' repository, but for log1p, which is as fast and right.
    "smooth_relu": lambda x, beta: F.relu(x - torch.log1p(beta * x.abs()) / beta),
    "squareplus": lambda x, b: (x + torch.sqrt(x * x + b)) / 2,
    "serf": lambda x: x * torch.erf(F.softplus(x)),
    "smu": lambda x, alpha, mu: ((1 + alpha) * x + (1 - alpha) * x * torch.erf(mu * (1 - alpha) * x)) / 2,
    "pssilu": lambda x, alpha, beta: x * (torch.sigmoid(alpha * x) - beta) / (1 - beta),
    "relu_smooth_backward": SmoothBackward.apply,
}
# SMU's default of 1e6 is a leaky ReLU.
NUMBERS = {"smu": (0.25, 1.5), "pssilu": (1.5, 0.2)}


def _numbers(row):
    numbers = NUMBERS.get(row.name, row.defaults)
    return tuple(torch.tensor([v]) for v in numbers) if row.learnable else numbers


def _theirs(row):
    return "eager" if row.name in EAGER else "aten"


def function(row, rival):
    """What is timed: ``row``'s value at a tensor."""
    numbers = _numbers(row)
    plain = EAGER.get(row.name, row.reference)
    if rival == "sat_kernels":
        return lambda x: activate(row, x, numbers)
    if rival == "torch.compile":
        torch.compiler.reset()  # else it gives up compiling after the eighth
        return torch.compile(lambda x: row.plain(x, *numbers), fullgraph=True)
    return lambda x: plain(x, *numbers)


CASES = [
    (name, dtype, rival)
    for name, row in ACTIVATIONS.items()
    for dtype in (torch.float32, torch.bfloat16)
    for rival in ("sat_kernels", _theirs(row), "torch.compile")
]


@pytest.mark.parametrize("name", EAGER)
def test_the_compositions_are_the_same_functions(name):
    row, x = ACTIVATIONS[name], torch.linspace(-3, 3, 101, dtype=torch.float64, requires_grad=True)
    values = [function(row, rival)(x) for rival in ("sat_kernels", "eager")]
    torch.testing.assert_close(*values, rtol=1e-6, atol=math.ulp(1.0))
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in values), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "dtype", "rival"), CASES)
def test_forward_backward(benchmark, name, dtype, rival):
    benchmark.group = f"{name} forward+backward {str(dtype)[6:]}"
    run_once = function(ACTIVATIONS[name], rival)
    x = torch.randn(SIZE).to(dtype).requires_grad_()
    grad = torch.randn(SIZE).to(dtype)

    def run():
        torch.autograd.grad(run_once(x), x, grad)

    run()
    benchmark(run)
