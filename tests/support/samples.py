"""Numbers and points at which finite differences see something."""

import math

import torch

# Not the defaults: a sharpness of 400 leaves finite differences nothing to see, and 1 hides a missing factor.
NUMBERS = {"alpha": 1.5, "beta": 0.7, "b": 4.0, "mu": 1.3, "threshold": 20.0}


def numbers(row):
    return tuple(NUMBERS[p.name] for p in row.parameters)


def tensors(row, dtype=torch.float64):
    """What ``row`` takes besides the input; leaves that require grad where it learns them."""
    if not row.learnable:
        return numbers(row)
    return tuple(torch.tensor(v, dtype=dtype, requires_grad=True) for v in numbers(row))


def points(*shape, largest=1.9):
    """An even number of them, none at 0, where ELU, CELU and SmoothReLU have no second derivative."""
    x = torch.linspace(-largest, largest, math.prod(shape), dtype=torch.float64)
    return x.reshape(shape).requires_grad_()
