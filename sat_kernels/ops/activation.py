"""Activations: choice between kernel and plain formula, and derivatives of every order.

Values, first and second derivatives are kernels. Third ones, and second ones that involve a learnable parameter,
differentiate the plain formula: rare, and right.
"""

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from .._extension import devices
from ..activations import ACTIVATIONS, ANY, Activation, Parameter
from .overlap import overlaps_itself

_DTYPES = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))
_ON_CPU, _ON_CUDA = "cpu" in devices(), "cuda" in devices()
_TYPES = (Tensor, torch.nn.Parameter)
# Bound here since each look-up through a module is a tenth of a microsecond, of which a call takes five.
_strided = torch.strided
_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_tracing_state = torch._C._get_tracing_state
_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms_active = torch._C._are_functorch_transforms_active
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def has_kernel(tensor: Tensor) -> bool:
    """Whether the kernels take ``tensor`` here and now.

    They do not under torch.compile, torch.jit.trace, torch.func transforms, forward-mode differentiation and modes such
    as make_fx's, nor on tensor subclasses: there the plain formula is what the surrounding machinery can see through.
    """
    return (
        type(tensor) in _TYPES
        and tensor.dtype in _DTYPES
        and (_ON_CPU if tensor.is_cpu else _ON_CUDA and tensor.is_cuda)
        and tensor.layout is _strided
        and not _seen_through()
    )


def _seen_through() -> bool:
    """Whether something around may trace, compile or differentiate what runs now, forward or backward."""
    # Compiling first: the compiler would take the other questions into its graph.
    return (
        _is_compiling()
        or forward_ad._current_level >= 0
        or _transforms_active()
        or _tracing_state() is not None
        or _dispatch_modes() > 0
    )


def activate(row: Activation, input: Tensor, numbers: tuple = (), inplace: bool = False) -> Tensor:
    """``row``'s value at ``input``; ``numbers`` in the order of ``row.parameters``."""
    if row.learnable:
        return _activate_learnable(row, input, numbers)
    if numbers:
        for parameter, value in zip(row.parameters, numbers, strict=True):
            if type(value) is not float or parameter.domain is not ANY:
                row.check(parameter, value)
    # In place, a lazily negated tensor would be written to through a copy.
    if not has_kernel(input) or (inplace and input.is_neg()):
        return input.copy_(row.reference(input.clone(), *numbers)) if inplace else row.reference(input, *numbers)
    kernels = _KERNELS[row.name]
    differentiable = _is_grad_enabled() and input.requires_grad
    if not inplace:
        return (kernels.apply if differentiable else kernels.forward)(input, *numbers)
    _check_writable(input)
    if differentiable:
        # Backward needs what was there, and copy_ makes torch's own checks before it writes.
        return input.copy_(kernels.apply(input.clone(), *numbers))
    kernels.forward_(input, *numbers)
    torch.autograd.graph.increment_version(input)
    return input


def _activate_learnable(row: Activation, input: Tensor, values: tuple) -> Tensor:
    if not input.is_floating_point():
        raise TypeError(f"input is {input.dtype}: {row.name} expects a floating tensor")
    dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
    # The number of a GPU tells GPUs apart, but meta tensors have the CPU's.
    fused, on_cpu, number = has_kernel(input), input.is_cpu, input.get_device()
    for value in values:
        # What modules hold, mostly. Anything else is looked at in detail, which takes 10 us more.
        if not (
            type(value) in _TYPES
            and value.dtype is dtype
            and value.numel() == 1
            and value.is_cpu == on_cpu
            and value.get_device() == number
        ):
            pairs = zip(row.parameters, values, strict=True)
            values = [_as_tensor(row, p, value, input, input.shape) for p, value in pairs]
            if fused := fused and all(type(value) in _TYPES for value in values):
                values = _as_kernels_take(values, dtype)
            break
    if not fused:
        return row.plain(input, *values)
    kernels = _KERNELS[row.name]
    if _is_grad_enabled() and (input.requires_grad or any(value.requires_grad for value in values)):
        return kernels.apply(input, *values)
    return kernels.forward(input, *values)


def _check_writable(input: Tensor) -> None:
    if overlaps_itself(input):
        raise RuntimeError(f"input overlaps itself (strides {input.stride()}): use inplace=False, or clone() it first")
    if input.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError("input is an inference tensor, which is not to be changed outside of inference mode")


def _as_tensor(row: Activation, parameter: Parameter, value, input: Tensor, shape: tuple) -> Tensor:
    name = parameter.name
    if not isinstance(value, Tensor):
        row.check(parameter, value)
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        return torch.full((1,), value, dtype=dtype, device=input.device)
    if not value.is_floating_point():
        raise TypeError(f"{name} is {value.dtype}: expected a number or a floating tensor")
    if value.numel() != 1 and (value.ndim != 1 or len(shape) < 2 or value.shape[0] != shape[1]):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: expected a number, a tensor of one element, or one element for "
            f"each of the input's channels (dimension 1 of {tuple(shape)})"
        )
    if value.device != input.device:
        raise ValueError(f"{name} is on {value.device}: expected the input's device, {input.device}")
    return value


def as_kernel_numbers(row: Activation, values: tuple, input: Tensor, shape: tuple | None = None) -> tuple:
    """``row``'s numbers as kernels take them: floats, or, where they are learnable, tensors.

    ``input``: a tensor of the dtype and device. ``shape``: of what the activation is taken of, if not input's.

    Raises:
        TypeError, ValueError: a number is not what ``row`` expects.
    """
    if len(values) != len(row.parameters):
        names = ", ".join(p.name for p in row.parameters) or "none"
        raise ValueError(f"{row.name} is given {len(values)} numbers: expected {len(row.parameters)} ({names})")
    pairs = list(zip(row.parameters, values, strict=True))
    if row.learnable:
        dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
        shape = input.shape if shape is None else shape
        return tuple(_as_kernels_take([_as_tensor(row, p, value, input, shape) for p, value in pairs], dtype))
    for parameter, value in pairs:
        row.check(parameter, value)
    return tuple(float(value) for value in values)


def _as_kernels_take(parameters: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The parameters in the type that the kernels compute in, with equally many elements; differentiable."""
    parameters = [p if p.dtype is dtype else p.to(dtype) for p in parameters]
    if len(parameters) > 1:
        channels = next((p.numel() for p in parameters if p.numel() != 1), 1)
        parameters = [p if p.numel() == channels else p.reshape(1).expand(channels) for p in parameters]
    return [p.contiguous() for p in parameters]


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
        self.apply_backward = _plain_apply(_backward_function(row, self))
        self.apply = _plain_apply(_learnable_function(row, self) if row.learnable else _fixed_function(row, self))


def _plain_apply(function: type[Function]):
    # Called directly for each node of the graph, without a frame that looks for it: 3 us per call.
    function._backward_cls.apply = function.backward
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
            (input,) = ctx.saved_tensors
            if not _is_grad_enabled() and has_kernel(grad):
                return kernels.backward(grad, input, *ctx.numbers), *nothing
            return input_gradient(row, grad, input, ctx.numbers), *nothing

    return Fixed


def _learnable_function(row: Activation, kernels: _Kernels) -> type[Function]:
    nothing = (None,) * len(row.parameters)

    class Learnable(Function):
        @staticmethod
        def forward(ctx, input, *parameters):
            ctx.save_for_backward(input, *parameters)
            return kernels.forward(input, *parameters)

        @staticmethod
        def backward(ctx, grad):
            input, *parameters = ctx.saved_tensors
            fused = not _is_grad_enabled() and has_kernel(grad)
            if True in ctx.needs_input_grad[1:]:
                if fused:
                    return kernels.parameter_backward(grad, input, *parameters)
                return tuple(_plain_gradients(row.plain, (input, *parameters), ctx.needs_input_grad, grad))
            if fused:
                return kernels.backward(grad, input, *parameters), *nothing
            return input_gradient(row, grad, input, parameters), *nothing

    return Learnable


def input_gradient(row: Activation, grad: Tensor, input: Tensor, numbers: tuple) -> Tensor:
    """grad * f'(input), differentiable where grad mode is on."""
    # A batch of gradients goes through the kernels one by one, but without a graph.
    if not has_kernel(grad) or (_is_grad_enabled() and _is_batched(grad)):
        return _plain_gradients(lambda x: row.plain(x, *numbers), (input,), (True,), grad)[0]
    kernels = _KERNELS[row.name]
    return (kernels.apply_backward if _is_grad_enabled() else kernels.backward)(grad, input, *numbers)


def _backward_function(row: Activation, kernels: _Kernels) -> type[Function]:
    nothing = (None,) * len(row.parameters)

    class Backward(Function):
        """grad * f'(input), differentiable with respect to both."""

        @staticmethod
        def forward(ctx, grad, input, *numbers):
            ctx.save_for_backward(grad, input, *(numbers if row.learnable else ()))
            ctx.numbers = () if row.learnable else numbers
            return kernels.backward(grad, input, *numbers)

        @staticmethod
        def backward(ctx, grad_grad):
            grad, input, *parameters = ctx.saved_tensors
            numbers = parameters or ctx.numbers
            if not _is_grad_enabled() and has_kernel(grad_grad):
                return *kernels.double_backward(grad_grad, grad, input, *numbers), *nothing

            def first(grad, input):
                return _plain_gradients(lambda x: row.plain(x, *numbers), (input,), (True,), grad)[0]

            return *_plain_gradients(first, (grad, input), ctx.needs_input_grad[:2], grad_grad), *nothing

    return Backward


def _plain_gradients(function, variables: tuple, needed: tuple, grad: Tensor) -> list[Tensor | None]:
    """Gradients of ``function`` at the variables that are ``needed``; differentiable where grad mode is on."""
    if _seen_through() or _is_batched(grad):
        # torch.autograd.grad would see no further than the innermost transform.
        if not _is_grad_enabled():
            variables = [v.detach() for v in variables]

        def of_needed(*values):
            values = iter(values)
            return function(*(next(values) if n else v for v, n in zip(variables, needed, strict=True)))

        _, pull = torch.func.vjp(of_needed, *(v for v, n in zip(variables, needed, strict=True) if n))
        # create_graph chooses those of torch's formulas that have forward-mode derivatives.
        found = iter(pull(grad, create_graph=True))
    else:
        create_graph = _is_grad_enabled()
        with torch.enable_grad():
            # Views are nodes of their own: where one variable depends on another, the gradient at the variables
            # themselves would contain that path, which the caller's graph goes through once more.
            variables = [
                (v.view_as(v) if create_graph and v.requires_grad else v.detach().requires_grad_()) if n else v
                for v, n in zip(variables, needed, strict=True)
            ]
            wanted = [v for v, n in zip(variables, needed, strict=True) if n]
            found = iter(torch.autograd.grad(function(*variables), wanted, grad, create_graph=create_graph))
    return [next(found) if n else None for n in needed]


_KERNELS = {row.name: _Kernels(row) for row in ACTIVATIONS.values()}
