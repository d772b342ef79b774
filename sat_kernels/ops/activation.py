"""Activations: choice between kernel and plain formula, and derivatives of every order.

First and second derivatives are kernels. Higher ones, and second ones that involve a learnable parameter,
differentiate the plain formula: rare paths, and right.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._extension import devices, extension
from ..activations import ACTIVATIONS, Activation

_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))
_DEVICES = devices()
_TYPES = (Tensor, torch.nn.Parameter)
_transforms_active = torch._C._are_functorch_transforms_active


class _Operators:
    """The raw operators of one activation."""

    def __init__(self, row: Activation):
        library = torch.ops.sat_kernels
        self.forward = getattr(library, row.name).default
        self.forward_ = getattr(library, f"{row.name}_").default
        self.backward = getattr(library, f"{row.name}_backward").default
        self.double_backward = getattr(library, f"{row.name}_double_backward").default
        if row.learnable:
            self.parameter_backward = getattr(library, f"{row.name}_parameter_backward").default


_OPERATORS = {} if extension is None else {row.name: _Operators(row) for row in ACTIVATIONS.values()}


def has_kernel(tensor: Tensor) -> bool:
    """Whether the kernels take ``tensor`` here and now.

    They do not under torch.compile, torch.func transforms and forward-mode differentiation, nor on tensor
    subclasses: there the plain formula is what the surrounding machinery can see through.
    """
    return (
        tensor.device.type in _DEVICES
        and tensor.dtype in _DTYPES
        and type(tensor) in _TYPES
        and tensor.layout is torch.strided
        and not torch.compiler.is_compiling()
        and not _transforms_active()
        and forward_ad._current_level < 0
    )


def activate(row: Activation, input: Tensor, parameters: tuple = (), inplace: bool = False) -> Tensor:
    """``row``'s value at ``input``; ``parameters`` in the order of ``row.parameters``."""
    if row.learnable:
        parameters = tuple(
            _parameter_tensor(name, value, input) for name, value in zip(row.parameters, parameters, strict=True)
        )
    if not has_kernel(input):
        if inplace:
            return input.copy_(row.reference(input.clone(), *parameters))
        return row.reference(input, *parameters)
    differentiate = torch.is_grad_enabled() and (
        input.requires_grad or (row.learnable and any(p.requires_grad for p in parameters))
    )
    if not differentiate:
        if not inplace:
            return _OPERATORS[row.name].forward(input, *parameters)
        _OPERATORS[row.name].forward_(input, *parameters)
        torch.autograd.graph.increment_version(input)
        return input
    if inplace and input.is_leaf:
        raise RuntimeError("a leaf tensor that requires grad can't be changed in place: use inplace=False")
    return _Activation.apply(row, inplace, input, *parameters)


def _parameter_tensor(name: str, value, input: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} has shape {tuple(value.shape)}: expected a number or a tensor of one element")
        if value.device != input.device:
            raise ValueError(f"{name} is on {value.device}: expected the input's device, {input.device}")
        return value
    if not value > 0:
        raise ValueError(f"{name}={value}: expected a number > 0")
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    return torch.full((), value, dtype=dtype, device=input.device)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, row, inplace, input, *parameters):
        ctx.row = row
        if row.learnable:
            ctx.save_for_backward(input, *parameters)
            return _OPERATORS[row.name].forward(input, *parameters)
        ctx.numbers = parameters
        if not inplace:
            ctx.save_for_backward(input)
            return _OPERATORS[row.name].forward(input, *parameters)
        ctx.save_for_backward(input.clone())
        ctx.mark_dirty(input)
        _OPERATORS[row.name].forward_(input, *parameters)
        return input

    @staticmethod
    def backward(ctx, grad):
        row = ctx.row
        input, *tensors = ctx.saved_tensors
        if row.learnable:
            return None, None, *_learnable_backward(row, ctx.needs_input_grad[2:], grad, input, tensors)
        return None, None, _input_gradient(row, grad, input, ctx.numbers), *(None for _ in ctx.numbers)


def _input_gradient(row: Activation, grad: Tensor, input: Tensor, numbers: tuple) -> Tensor:
    if not has_kernel(grad):
        return _plain_gradients(row, grad, input, numbers, (input,))[0]
    if torch.is_grad_enabled():
        return _ActivationBackward.apply(row, grad, input, *numbers)
    return _OPERATORS[row.name].backward(grad, input, *numbers)


def _learnable_backward(row: Activation, needed, grad: Tensor, input: Tensor, parameters: list) -> list:
    if not any(needed[1:]):
        return [_input_gradient(row, grad, input, tuple(parameters)), *(None for _ in parameters)]
    if torch.is_grad_enabled() or not has_kernel(grad):
        variables = [v for v, wanted in zip((input, *parameters), needed, strict=True) if wanted]
        gradients = iter(_plain_gradients(row, grad, input, parameters, variables))
        return [next(gradients) if wanted else None for wanted in needed]
    grad_input, *grad_parameters = _OPERATORS[row.name].parameter_backward(grad, input, *parameters)
    return [grad_input if needed[0] else None, *grad_parameters]


def _plain_gradients(row: Activation, grad: Tensor, input: Tensor, parameters, variables) -> tuple:
    """Gradients of the plain formula, themselves differentiable where grad mode is on."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        if not create_graph:
            detached = {id(v): v.detach().requires_grad_() for v in variables}
            input = detached.get(id(input), input)
            parameters = [detached.get(id(p), p) for p in parameters]
            variables = [detached[id(v)] for v in variables]
        value = row.reference(input, *parameters)
        return torch.autograd.grad(value, variables, grad.to(value.dtype), create_graph=create_graph)


class _ActivationBackward(torch.autograd.Function):
    """grad * f'(input), differentiable with respect to both."""

    @staticmethod
    def forward(ctx, row, grad, input, *parameters):
        ctx.row, ctx.parameters = row, parameters
        ctx.save_for_backward(grad, input)
        return _OPERATORS[row.name].backward(grad, input, *parameters)

    @staticmethod
    def backward(ctx, grad_grad):
        row, parameters = ctx.row, ctx.parameters
        grad, input = ctx.saved_tensors
        nothing = (None,) * len(parameters)
        if has_kernel(grad_grad) and not torch.is_grad_enabled():
            return None, *_OPERATORS[row.name].double_backward(grad_grad, grad, input, *parameters), *nothing
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            if not create_graph:
                grad, input = grad.detach().requires_grad_(), input.detach().requires_grad_()
            first = torch.autograd.grad(row.reference(input, *parameters), input, grad, create_graph=True)[0]
            second = torch.autograd.grad(first, (grad, input), grad_grad, create_graph=create_graph)
        return None, *second, *nothing
