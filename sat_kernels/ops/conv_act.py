"""A network's first layer, convolution and activation, in one pass; and steps of its input along its gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .activation import activate, as_kernel_numbers, has_kernel, input_gradient
from .named import as_arguments, named
from .perturbation import checks, pgd_step_, sizes

MOST_CHANNELS = 4
_DTYPES = {torch.float32: 0, torch.bfloat16: 2, torch.float16: 3}  # as csrc/elementwise.h numbers them
_forward = torch.ops.sat_kernels.conv_act.default._op
_step = torch.ops.sat_kernels.conv_act_backward_pgd_step_.default._op


def conv_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation,
    stride: int = 1,
    padding: int = 0,
    mean: Tensor | None = None,
    dtype: torch.dtype | None = None,
    keep_z: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """f(conv2d(x - mean, weight) + bias) in one pass.

    Reads x and writes the activation, and no more: what follows can be had from x again. A frozen batch norm is folded
    into weight and bias, and so is a division of x by a standard deviation. Differentiable, by recomputation with
    PyTorch's own operators.

    Args:
        x: (B, C, H, W) with 1 to 4 channels, float32 for the kernel; others run as plain PyTorch.
        weight: (F, C, kh, kw), x's dtype and device.
        bias: (F,), or None.
        activation: f, as in :func:`act_perturbed`; learnable numbers: one, or one per filter.
        stride, padding: of the convolution, the same for both dimensions. Zeros are added to x - mean.
        mean: (C,), or None.
        dtype: of the result: float32, bfloat16 or float16, by default x's.
        keep_z: whether to return z = conv2d(x - mean, weight) + bias, too.

    Returns:
        (B, F, H', W'), or two such tensors, (f(z), z); channels_last if x is.

    Raises:
        TypeError, ValueError: an argument is not as above.
        RuntimeError: on a GPU, kernels (from about 20 x 20 on) that its shared memory has no room for.
    """
    row, numbers = named(activation)
    layer = _Layer(x, weight, bias, stride, padding, mean)
    dtype = dtype or x.dtype
    if dtype not in (*_DTYPES, x.dtype):
        raise TypeError(f"dtype={dtype}: expected {', '.join(map(str, _DTYPES))}")
    if not layer.fused or dtype not in _DTYPES or any(isinstance(n, Tensor) and n.requires_grad for n in numbers):
        z = layer.preactivation()
        y = activate(row, z, numbers).to(dtype)
        return (y, z.to(dtype)) if keep_z else y
    numbers = as_kernel_numbers(row, numbers, x, layer.out_shape)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in layer.tensors):
        if keep_z:
            raise ValueError("keep_z=True with tensors that require grad: expected it in torch.no_grad() only")
        return _ConvAct.apply(row, numbers, stride, padding, dtype, *layer.tensors)
    y, z = _forward(*layer.arguments(), *as_arguments(row, numbers), _DTYPES[dtype], keep_z)
    return (y, z) if keep_z else y


class _ConvAct(Function):
    @staticmethod
    def forward(ctx, row, numbers, stride, padding, dtype, x, weight, bias, mean):
        ctx.save_for_backward(x, weight, bias, mean)
        ctx.row, ctx.numbers, ctx.geometry = row, numbers, (stride, padding)
        layer = _Layer(x, weight, bias, stride, padding, mean).arguments()
        return _forward(*layer, *as_arguments(row, numbers), _DTYPES[dtype], False)[0]

    @staticmethod
    def backward(ctx, grad):
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            # Views are nodes of their own: the gradient at them does not go on into what they were computed from.
            tensors = [
                t if t is None or not needed else (t.view_as(t) if create_graph else t.detach().requires_grad_())
                for t, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[5:], strict=True)
            ]
            x, weight, bias, mean = tensors
            z = F.conv2d(x if mean is None else x - mean.view(-1, 1, 1), weight, bias, *ctx.geometry)
            y = activate(ctx.row, z, ctx.numbers).to(grad.dtype)
            wanted = [t for t, needed in zip(tensors, ctx.needs_input_grad[5:], strict=True) if needed]
            found = iter(torch.autograd.grad(y, wanted, grad, create_graph=create_graph))
        return *(None,) * 5, *(next(found) if needed else None for needed in ctx.needs_input_grad[5:])


def conv_act_backward_pgd_step_(
    grad_y: Tensor,
    x_adv: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation,
    eps: float | Tensor,
    alpha: float | Tensor,
    stride: int = 1,
    padding: int = 0,
    mean: Tensor | None = None,
    z: Tensor | None = None,
    steps: int = 1,
    clip_min: float = 0.0,
    clip_max: float = 1.0,
    targeted: bool = False,
) -> Tensor:
    """Linf steps of the input of a first layer, y = f(conv2d(x - mean, weight) + bias), from the gradient at y.

    Backward pass of activation and convolution, step and projection in one: gradients at z and x are never written.
    With ``steps`` > 1 the inner loop of YOPO (Zhang et al., arXiv 1905.00877): the gradient at y stays, and that at the
    input is computed anew from each x_adv. Of one launch on a GPU where a block of threads can hold a sample.

    Feasible in exact arithmetic, as :func:`pgd_step_`.

    Args:
        grad_y: (B, F, H', W') gradient of the loss at y; float32, bfloat16 or float16 for the kernel.
        x_adv: (B, C, H, W), changed in place; float32 for the kernel. Any strides, no overlapping memory.
        x: the clean input, of x_adv's shape, dtype and device.
        weight, bias, activation, stride, padding, mean: as those of :func:`conv_act`.
        eps, alpha: as those of :func:`pgd_step_`.
        z: conv2d(x_adv - mean, weight) + bias, if it is at hand, in grad_y's dtype; with ``steps=1``.
        steps: how many >= 0.
        clip_min, clip_max: the box.
        targeted: descend.

    Returns:
        ``x_adv``.

    Raises:
        TypeError, ValueError, RuntimeError: as those of :func:`conv_act`; nothing is changed.
    """
    row, numbers = named(activation)
    layer = _Layer(x_adv, weight, bias, stride, padding, mean)
    checks.check_tensors(x_adv, x, {}, {})
    _check_output("grad_y", grad_y, layer)
    read = {"grad_y": grad_y, "x": x}
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps={steps!r}: expected an integer >= 0")
    if z is not None:
        _check_output("z", z, layer)
        if z.dtype != grad_y.dtype:
            raise TypeError(f"z is {z.dtype}: expected grad_y's dtype, {grad_y.dtype}")
        if steps != 1:
            raise ValueError(f"steps={steps} with z: expected 1, since z is that of one x_adv")
        read["z"] = z
    checks.check_memory({"x_adv": x_adv}, read)
    box = sizes.box(clip_min, clip_max, x_adv.dtype)
    number, of = sizes.radius("eps", eps, x_adv, "Linf")
    step, step_of = sizes.length("alpha", alpha, x_adv, "Linf")
    if targeted:
        step, step_of = -step, None if step_of is None else -step_of
    with torch.no_grad():
        numbers = as_kernel_numbers(row, numbers, x_adv, layer.out_shape)
        if layer.fused and not x_adv.is_neg() and grad_y.dtype in _DTYPES:
            rest = (*as_arguments(row, numbers), number, step, of, step_of, *box, steps)
            _step(grad_y, x_adv, x, z, *layer.arguments()[1:], *rest)
            torch.autograd.graph.increment_version(x_adv)
            return x_adv
        for _ in range(steps):
            at = layer.preactivation() if z is None else z.to(x_adv.dtype)
            grad_z = input_gradient(row, grad_y.to(at.dtype), at, numbers)
            grad = torch.nn.grad.conv2d_input(x_adv.shape, weight, grad_z, stride, padding)
            signed = {"eps": eps, "alpha": alpha, "targeted": targeted, "clip_min": clip_min, "clip_max": clip_max}
            pgd_step_(x_adv, grad, x, **signed)
        return x_adv


class _Layer:
    """What both take, checked."""

    def __init__(self, x, weight, bias, stride, padding, mean):
        self.tensors, self.stride, self.padding = (x, weight, bias, mean), stride, padding
        for name, tensor, dims in (("x", x, 4), ("weight", weight, 4), ("bias", bias, 1), ("mean", mean, 1)):
            if tensor is None and name in ("bias", "mean"):
                continue
            checks.check_dense(name, tensor)
            if tensor.dim() != dims or not tensor.is_floating_point():
                shape = {"x": "(B, C, H, W)", "weight": "(F, C, kh, kw)", "bias": "(F,)", "mean": "(C,)"}[name]
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}: expected floating {shape}")
            if tensor.dtype != x.dtype:
                raise TypeError(f"{name} is {tensor.dtype}: expected x's dtype, {x.dtype}")
            if tensor.device != x.device:
                raise ValueError(f"{name} is on {tensor.device}: expected x's device, {x.device}")
        for name, value, least in (("stride", stride, 1), ("padding", padding, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: expected an integer >= {least}, the same for both dimensions")
        filters, channels, *kernel = weight.shape
        if channels != x.shape[1]:
            raise ValueError(f"weight has shape {tuple(weight.shape)}: expected (F, {x.shape[1]}, kh, kw)")
        for name, tensor, size in (("bias", bias, filters), ("mean", mean, channels)):
            if tensor is not None and tensor.numel() != size:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected ({size},)")
        padded = [n + 2 * padding for n in x.shape[2:]]
        if any(k < 1 or k > n for k, n in zip(kernel, padded, strict=True)):
            raise ValueError(f"weight has shape {tuple(weight.shape)}: expected kernels of at most {tuple(padded)}")
        self.out_shape = (
            x.shape[0], filters, *((n - k) // stride + 1 for k, n in zip(kernel, padded, strict=True)),
        )  # fmt: skip
        given = [t for t in self.tensors if t is not None]
        self.fused = x.dtype == torch.float32 and 1 <= channels <= MOST_CHANNELS and all(map(has_kernel, given))

    def arguments(self) -> tuple:
        """As raw operators take them."""
        x, *small = self.tensors
        return (x, *(None if t is None else t.detach().contiguous() for t in small), self.stride, self.padding)

    def preactivation(self) -> Tensor:
        x, weight, bias, mean = self.tensors
        return F.conv2d(x if mean is None else x - mean.view(-1, 1, 1), weight, bias, self.stride, self.padding)


def _check_output(name: str, tensor, layer: _Layer) -> None:
    checks.check_dense(name, tensor)
    x = layer.tensors[0]
    if not tensor.is_floating_point():
        raise TypeError(f"{name} is {tensor.dtype}: expected a floating tensor")
    if tuple(tensor.shape) != layer.out_shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected the layer's output, {layer.out_shape}")
    if tensor.device != x.device:
        raise ValueError(f"{name} is on {tensor.device}: expected x_adv's device, {x.device}")
