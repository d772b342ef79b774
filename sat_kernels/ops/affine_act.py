"""What follows a convolution: bias, residual, frozen batch norm and activation, in one pass."""

import torch
from torch import Tensor
from torch.autograd import Function

from .activation import activate, as_kernel_numbers, has_kernel, input_gradient
from .named import as_arguments, named
from .overlap import overlaps, overlaps_itself
from .perturbation import checks

_forward = torch.ops.sat_kernels.affine_act_.default._op
_backward = torch.ops.sat_kernels.affine_act_backward.default._op


def affine_act_(
    input: Tensor,
    *,
    activation,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """input += bias + residual, in place; and f(scale input + shift), which is returned. One pass over memory.

    A frozen batch norm is a scale and a shift. Differentiable once, with respect to ``input`` and ``residual`` and
    nothing else; the backward pass is one pass, too, and keeps the sum alone.

    Args:
        input: (B, C, ...) floating tensor, any strides, no overlapping memory. Without bias and residual it is not
            changed.
        activation: f. A name in :data:`sat_kernels.activations.ACTIVATIONS`, a tuple of name and numbers, or a module.
        bias, scale, shift: (C,) in float64 for a float64 input, else float32; or None: 0, 1 and 0.
        residual: of input's shape, dtype and device; or None: 0.

    Returns:
        Tensor of the shape, dtype and memory format of ``input``.

    Raises:
        TypeError, ValueError: an argument is not as above; nothing is changed.
    """
    row, numbers = named(activation)
    _check(input, bias, residual, scale, shift)
    given = [t for t in (input, bias, residual, scale, shift) if t is not None]
    numbers = as_kernel_numbers(row, numbers, input)
    if not all(map(has_kernel, given)) or input.is_neg():
        return _plain(row, numbers, input, bias, residual, scale, shift)
    bias, scale, shift = (None if t is None else t.detach().contiguous() for t in (bias, scale, shift))
    numbers = tuple(n.detach() if isinstance(n, Tensor) else n for n in numbers)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (input, residual)):
        return _AffineAct.apply(input, residual, bias, scale, shift, row, numbers)[0]
    y = _forward(input, bias, residual, scale, shift, *as_arguments(row, numbers))
    if bias is not None or residual is not None:
        torch.autograd.graph.increment_version(input)
    return y


class _AffineAct(Function):
    @staticmethod
    def forward(ctx, input, residual, bias, scale, shift, row, numbers):
        y = _forward(input, bias, residual, scale, shift, *as_arguments(row, numbers))
        ctx.row, ctx.numbers = row, numbers
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input, scale, shift)
        if bias is None and residual is None:
            return (y,)
        ctx.mark_dirty(input)
        return y, input

    @staticmethod
    def backward(ctx, grad, grad_sum=None):
        nothing = (None,) * 5
        if grad is None:
            return grad_sum, grad_sum, *nothing
        sum, scale, shift = ctx.saved_tensors
        if all(has_kernel(t) for t in (grad, sum, grad_sum) if t is not None):
            found = _backward(grad, sum, grad_sum, scale, shift, *as_arguments(ctx.row, ctx.numbers))
        else:
            found = input_gradient(ctx.row, grad, _affine(sum, scale, shift).to(sum.dtype), ctx.numbers)
            found = found if scale is None else (found * _spread(scale, sum)).to(sum.dtype)
            found = found if grad_sum is None else found + grad_sum
        return found, found if ctx.needs_input_grad[1] else None, *nothing


def _plain(row, numbers, input, bias, residual, scale, shift) -> Tensor:
    if bias is not None:
        input.add_(_spread(bias.detach(), input))
    if residual is not None:
        input.add_(residual)
    scale, shift = (None if t is None else t.detach() for t in (scale, shift))
    return activate(row, _affine(input, scale, shift), numbers).to(input.dtype)


def _affine(sum: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    sum = sum if scale is None else sum * _spread(scale, sum)
    return sum if shift is None else sum + _spread(shift, sum)


def _spread(of_channels: Tensor, input: Tensor) -> Tensor:
    return of_channels.view(-1, *(1,) * (input.dim() - 2))


def _check(input, bias, residual, scale, shift) -> None:
    checks.check_dense("input", input)
    if input.dtype not in checks.FLOATS:
        raise TypeError(f"input is {input.dtype}: expected one of {', '.join(map(str, checks.FLOATS))}")
    if residual is not None:
        checks.check_dense("residual", residual)
        if residual.dtype != input.dtype:
            raise TypeError(f"residual is {residual.dtype}: expected input's dtype, {input.dtype}")
        if residual.shape != input.shape:
            raise ValueError(f"residual has shape {tuple(residual.shape)}: expected input's, {tuple(input.shape)}")
        if residual.device != input.device:
            raise ValueError(f"residual is on {residual.device}: expected input's device, {input.device}")
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    for name, tensor in (("bias", bias), ("scale", scale), ("shift", shift)):
        if tensor is None:
            continue
        checks.check_dense(name, tensor)
        if tensor.dtype != dtype:
            raise TypeError(f"{name} is {tensor.dtype}: expected {dtype} for input's {input.dtype}")
        if input.dim() < 2 or tensor.shape != (input.shape[1],):
            expected = f"({input.shape[1]},)" if input.dim() > 1 else "an input of (B, C, ...)"
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {expected}")
        if tensor.device != input.device:
            raise ValueError(f"{name} is on {tensor.device}: expected input's device, {input.device}")
    if (bias is None and residual is None) or torch.compiler.is_compiling():  # where memory has no addresses
        return
    if overlaps_itself(input):
        raise ValueError(f"input overlaps itself (strides {input.stride()}): expected memory of its own per element")
    if residual is not None and overlaps(input, residual):
        raise ValueError("residual shares memory with input, which is written: expected another tensor")
