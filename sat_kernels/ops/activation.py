"""Activations: choice between kernel and plain formula, and derivatives of every order.

Values, first and second derivatives are kernels. Third ones, and second ones that involve a learnable
parameter, differentiate the plain formula: rare, and right.
"""

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .._extension import devices, extension
from ..activations import ACTIVATIONS, Activation
from .overlap import overlaps_itself

_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))
_DEVICES = devices()
_TYPES = (Tensor, torch.nn.Parameter)
_is_compiling = torch.compiler.is_compiling
_tracing_state = torch._C._get_tracing_state
_transforms_active = torch._C._are_functorch_transforms_active


def has_kernel(tensor: Tensor) -> bool:
    """Whether the kernels take ``tensor`` here and now.

    They do not under torch.compile, torch.jit.trace, torch.func transforms and forward-mode differentiation, nor
    on tensor subclasses: there the plain formula is what the surrounding machinery can see through.
    """
    return (
        tensor.device.type in _DEVICES
        and tensor.dtype in _DTYPES
        and type(tensor) in _TYPES
        and tensor.layout is torch.strided
        and forward_ad._current_level < 0
        and not _transforms_active()
        and not _is_compiling()
        and _tracing_state() is None
    )


def activate(row: Activation, input: Tensor, parameters: tuple = (), inplace: bool = False) -> Tensor:
    """``row``'s value at ``input``; ``parameters`` in the order of ``row.parameters``."""
    if row.learnable:
        parameters = tuple(
            _parameter_tensor(name, value, input) for name, value in zip(row.parameters, parameters, strict=True)
        )
    # In place, a lazily negated tensor would be written to through a copy.
    if not has_kernel(input) or (inplace and input.is_neg()):
        return _plain(row, input, parameters, inplace)
    kernels = _KERNELS[row.name]
    if torch.is_grad_enabled() and (input.requires_grad or (row.learnable and parameters[0].requires_grad)):
        if not inplace:
            return kernels.apply(input, *parameters)
        base = input._base if input._is_view() else input
        if base.is_leaf and base.requires_grad:
            raise RuntimeError("a leaf tensor that requires grad can't be changed in place: use inplace=False")
        _check_writable(input)
        return _InPlace.apply(row, input, input.clone(), parameters)
    if not inplace:
        return kernels.forward(input, *parameters)
    _check_writable(input)
    kernels.forward_(input, *parameters)
    torch.autograd.graph.increment_version(input)
    return input


def _plain(row: Activation, input: Tensor, parameters: tuple, inplace: bool) -> Tensor:
    if inplace:
        return input.copy_(row.reference(input.clone(), *parameters))
    return row.reference(input, *parameters)


def _check_writable(input: Tensor) -> None:
    if overlaps_itself(input):
        raise RuntimeError(f"input overlaps itself (strides {input.stride()}): use inplace=False, or clone() it first")


def _parameter_tensor(name: str, value, input: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} is {value.dtype}: expected a number or a floating tensor of one element")
        if value.numel() != 1:
            raise ValueError(f"{name} has shape {tuple(value.shape)}: expected a number or a tensor of one element")
        if value.device != input.device:
            raise ValueError(f"{name} is on {value.device}: expected the input's device, {input.device}")
        return value.reshape(())
    if not value > 0:
        raise ValueError(f"{name}={value}: expected a number > 0")
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    return torch.full((), value, dtype=dtype, device=input.device)


class _Kernels:
    """The raw operators of one activation, and the autograd functions made of them.

    The operators' ``_op`` skips a Python frame per call, and the base class's ``apply`` what Function.apply does
    for torch.func transforms, under which these functions never run: 11 of 18 us per call.
    """

    def __init__(self, row: Activation):
        def operator(suffix: str):
            return getattr(torch.ops.sat_kernels, row.name + suffix).default._op

        self.forward, self.forward_ = operator(""), operator("_")
        self.backward, self.double_backward = operator("_backward"), operator("_double_backward")
        if row.learnable:
            self.parameter_backward = operator("_parameter_backward")
            self.apply = _plain_apply(_learnable_function(row, self))
        else:
            self.apply = _plain_apply(_fixed_function(row, self))
        self.apply_backward = _plain_apply(_backward_function(row, self))

    def input_gradient(self, row: Activation, grad: Tensor, input: Tensor, parameters: tuple) -> Tensor:
        if _transforms_active():
            return _plain_gradients(lambda x: row.reference(x, *parameters), (input,), (True,), grad)[0]
        if torch.is_grad_enabled():
            return self.apply_backward(grad, input, *parameters)
        return self.backward(grad, input, *parameters)


def _plain_apply(function: type[Function]):
    return super(Function, function).apply


def _fixed_function(row: Activation, kernels: _Kernels) -> type[Function]:
    nothing = (None,) * len(row.parameters)

    class Fixed(Function):
        @staticmethod
        def forward(ctx, input, *numbers):
            ctx.save_for_backward(input)
            ctx.numbers = numbers
            return kernels.forward(input, *numbers)

        @staticmethod
        def backward(ctx, grad):
            return kernels.input_gradient(row, grad, *ctx.saved_tensors, ctx.numbers), *nothing

    return Fixed


def _learnable_function(row: Activation, kernels: _Kernels) -> type[Function]:
    class Learnable(Function):
        @staticmethod
        def forward(ctx, input, parameter):
            ctx.save_for_backward(input, parameter)
            return kernels.forward(input, parameter)

        @staticmethod
        def backward(ctx, grad):
            input, parameter = ctx.saved_tensors
            if not ctx.needs_input_grad[1]:
                return kernels.input_gradient(row, grad, input, (parameter,)), None
            if torch.is_grad_enabled() or _transforms_active():
                return tuple(_plain_gradients(row.reference, (input, parameter), ctx.needs_input_grad, grad))
            return kernels.parameter_backward(grad, input, parameter)

    return Learnable


def _backward_function(row: Activation, kernels: _Kernels) -> type[Function]:
    nothing = (None,) * len(row.parameters)

    class Backward(Function):
        """grad * f'(input), differentiable with respect to both."""

        @staticmethod
        def forward(ctx, grad, input, *parameters):
            ctx.save_for_backward(grad, input)
            ctx.parameters = parameters
            return kernels.backward(grad, input, *parameters)

        @staticmethod
        def backward(ctx, grad_grad):
            grad, input = ctx.saved_tensors
            parameters = ctx.parameters
            if not torch.is_grad_enabled() and not _transforms_active():
                return *kernels.double_backward(grad_grad, grad, input, *parameters), *nothing

            def first(grad, input):
                return _plain_gradients(lambda x: row.reference(x, *parameters), (input,), (True,), grad)[0]

            return *_plain_gradients(first, (grad, input), ctx.needs_input_grad[:2], grad_grad), *nothing

    return Backward


class _InPlace(Function):
    """``input`` overwritten by its activation. ``before`` is a copy of it that is part of the graph, too."""

    @staticmethod
    def forward(ctx, row, input, before, numbers):
        ctx.row, ctx.numbers = row, numbers
        ctx.save_for_backward(before)
        ctx.mark_dirty(input)
        _KERNELS[row.name].forward_(input, *numbers)
        return input

    @staticmethod
    def backward(ctx, grad):
        row = ctx.row
        return None, _KERNELS[row.name].input_gradient(row, grad, *ctx.saved_tensors, ctx.numbers), None, None


def _plain_gradients(function, variables: tuple, needed: tuple, grad: Tensor) -> list[Tensor | None]:
    """Gradients of ``function`` at the variables that are ``needed``; differentiable where grad mode is on."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views of them are nodes of their own: where one variable depends on another, the gradient at the
        # variables themselves would contain that path, which the caller's graph goes through once more.
        variables = [
            (v.view_as(v) if create_graph else v.detach().requires_grad_()) if n else v
            for v, n in zip(variables, needed, strict=True)
        ]
        wanted = [v for v, n in zip(variables, needed, strict=True) if n]
        found = iter(torch.autograd.grad(function(*variables), wanted, grad, create_graph=create_graph))
    return [next(found) if n else None for n in needed]


_KERNELS = {} if extension is None else {row.name: _Kernels(row) for row in ACTIVATIONS.values()}
