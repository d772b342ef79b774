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


def tensors(name: str, numbers: tuple, dtype: torch.dtype = torch.float32, channels: int = 1, device="cpu") -> tuple:
    """What operators take besides tensors of the input's shape."""
    if not ACTIVATIONS[name].learnable:
        return numbers
    return tuple(torch.full((channels,), v, dtype=computed_in(dtype)).to(device) for v in numbers)


def operator(name: str):
    return getattr(torch.ops.sat_kernels, name)


def run(name: str, numbers: tuple, x: torch.Tensor, order: int) -> torch.Tensor:
    """Value, first or second derivative, on x's device."""
    one, parameters = torch.ones_like(x), tensors(name, numbers, x.dtype, device=x.device)
    if order == 0:
        return operator(name)(x, *parameters)
    if order == 1:
        return operator(f"{name}_backward")(one, x, *parameters)
    return operator(f"{name}_double_backward")(one, one, x, *parameters)[1]


def slopes(name: str, numbers: tuple, x: torch.Tensor) -> list[torch.Tensor]:
    """df/dp at every element of the vector x, for each parameter p: each element is a channel of its own."""
    parameters = tensors(name, numbers, x.dtype, x.numel(), x.device)
    _, *grads = operator(f"{name}_parameter_backward")(torch.ones_like(x[None]), x[None], *parameters)
    return grads


def calls(name: str, x: torch.Tensor, grad: torch.Tensor):
    """Every operator of the activation but the one in place, with its tensors of the input's shape."""
    yield name, (x,)
    yield f"{name}_backward", (grad, x)
    yield f"{name}_double_backward", (grad, grad, x)
    if name in LEARNABLE:
        yield f"{name}_parameter_backward", (grad, x)


def every_number(dtype: torch.dtype) -> torch.Tensor:
    """All 65,536 of a 16-bit type."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
