"""Images and gradients at which steps go wrong easily."""

import math

import torch

# Zeros, both faces of the box, sums that round, denormal numbers.
PIXELS = (0.0, -0.0, 1.0, 0.7, 8 / 255, 2.0**-130, 1e-310, 5e-324, 0.5, 3 / 255)
GRADIENTS = (0.0, -0.0, 1e-7, -1e-7, 1e-45, -1e-45, math.inf, -math.inf, math.nan, 1.0, -1.0)


def pixels(shape, dtype, grad_dtype, seed=0, eps=8 / 255):
    """x_adv, grad and x: pixels of the box and near it, and gradients of every kind."""
    generator = torch.Generator().manual_seed(seed)

    def mixed(special):
        picked = torch.tensor(special, dtype=torch.float64)[torch.randint(len(special), shape, generator=generator)]
        random = torch.rand(shape, generator=generator, dtype=torch.float64)
        return random.where(torch.rand(shape, generator=generator) < 0.5, picked)

    x = mixed(PIXELS)
    moves = mixed([0.0, 1.0, 0.5]) * torch.randint(-1, 2, shape, generator=generator) * eps
    grad = mixed(GRADIENTS) * torch.randint(-1, 2, shape, generator=generator)
    return (x + moves).to(dtype), grad.to(grad_dtype), x.to(dtype)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """To compare: NaN is equal to NaN, and 0 differs from -0."""
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])
