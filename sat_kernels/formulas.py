"""Plain PyTorch formulas of the activations that torch lacks: what compilers, transforms and other devices run.

``input`` is a floating tensor of any shape; parameters are tensors that broadcast with it, or numbers.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _in_float32(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``formula``, computed in float32 for 16-bit types: these lose too much in between."""

    @functools.wraps(formula)
    def computed(input: Tensor, *parameters) -> Tensor:
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        return formula(x, *parameters).to(input.dtype)

    return computed


@_in_float32
def swish(x, beta):
    return x * torch.sigmoid(beta * x)


@_in_float32
def parametric_softplus(x, alpha):
    # threshold 80 instead of torch's 20: exp(80) still fits float32, and the gradient at alpha does not
    # drop to zero from alpha * x = 20 on.
    return F.softplus(x * alpha, threshold=80.0) / alpha


@_in_float32
def smooth_relu(x, beta):
    # Unlike the kernel's form this one cancels for small beta * x: its error is one unit of x, not of the result.
    # The series that would mend it takes 7 times as long, compiled or not.
    x = F.relu(x)
    # Cut below infinity: inf - log1p(inf) would be NaN.
    return x - torch.log1p((beta * x).clamp(max=1e30)) / beta


@_in_float32
def squareplus(x, b):
    # (x + r) / 2 would lose all digits for negative x (2950 units at -64).
    positive = x.clamp(min=0)
    # |x|, but with slope 1 at 0, where that of x.abs() is 0. torch.where would take five times as long.
    magnitude = positive + F.relu(-x)
    return positive + b / (2 * (magnitude + torch.sqrt(x * x + b)))


@_in_float32
def serf(x):
    return x * torch.erf(F.softplus(x))


@_in_float32
def smu(x, alpha, mu):
    return ((1 + alpha) * x + (1 - alpha) * x * torch.erf(mu * (1 - alpha) * x)) / 2


@_in_float32
def pssilu(x, alpha, beta):
    return x * (torch.sigmoid(alpha * x) - beta) / (1 - beta)


@_in_float32
def relu_smooth_backward(x, alpha):
    # Softplus has the slope that is wanted. What it adds to the value is 0; at infinity inf - inf, made 0.
    smooth = F.softplus(x, alpha, threshold=80.0)
    return F.relu(x).detach() + torch.nan_to_num(smooth - smooth.detach())
