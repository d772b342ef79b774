"""Calls of the activations' raw operators."""

import pytest
import torch

from sat_kernels._extension import extension
from sat_kernels.activations import ACTIVATIONS

needs_extension = pytest.mark.skipif(extension is None, reason="the extension is not built")
LEARNABLE = [name for name, row in ACTIVATIONS.items() if row.learnable]


def computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def rounded(numbers: tuple, dtype: torch.dtype) -> tuple:
    """The numbers as the kernels have them."""
    return tuple(torch.tensor(v, dtype=computed_in(dtype)).item() for v in numbers)


def tensors(name: str, numbers: tuple, dtype: torch.dtype = torch.float32, channels: int = 1) -> tuple:
    """What operators take besides tensors of the input's shape."""
    if not ACTIVATIONS[name].learnable:
        return numbers
    return tuple(torch.full((channels,), v, dtype=computed_in(dtype)) for v in numbers)


def operator(name: str):
    return getattr(torch.ops.sat_kernels, name)


def run(name: str, numbers: tuple, x: torch.Tensor, order: int) -> torch.Tensor:
    """Value, first or second derivative."""
    one, parameters = torch.ones_like(x), tensors(name, numbers, x.dtype)
    if order == 0:
        return operator(name)(x, *parameters)
    if order == 1:
        return operator(f"{name}_backward")(one, x, *parameters)
    return operator(f"{name}_double_backward")(one, one, x, *parameters)[1]


def slopes(name: str, numbers: tuple, x: torch.Tensor) -> list[torch.Tensor]:
    """df/dp at every element of the vector x, for each parameter p: each element is a channel of its own."""
    parameters = tensors(name, numbers, x.dtype, x.numel())
    _, *grads = operator(f"{name}_parameter_backward")(torch.ones_like(x[None]), x[None], *parameters)
    return grads
