"""Activations that torch lacks, in its operators, as they are published."""

import torch
import torch.nn.functional as F


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


COMPOSITIONS = {
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
