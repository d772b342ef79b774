"""What functions of images are compared by: values, and a gradient at the input."""

import torch
from torch import Tensor


def answer(input: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """``output``, and at ``input``, a leaf, the gradient of a sum of it with factors that are not alike.

    Raises:
        TypeError: ``output`` is no Tensor.
    """
    if not isinstance(output, Tensor):
        raise TypeError(f"expected a model that returns logits, a Tensor, not {type(output).__name__}")
    factors = torch.arange(output.numel(), device=output.device).cos().to(output.dtype).view(output.shape)
    grad = torch.autograd.grad(output, input, factors, allow_unused=True)[0] if output.requires_grad else None
    return output.detach(), torch.zeros_like(input) if grad is None else grad
