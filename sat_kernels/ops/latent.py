"""Activations of perturbed inputs, and steps of the perturbation, fused with their backward pass."""

import math

import torch
from torch import Tensor
from torch.autograd import Function

from ..activations import Activation
from .activation import activate, as_kernel_numbers, has_kernel, input_gradient
from .named import as_arguments, named
from .perturbation import checks, reference, sizes

_OPERATORS = torch.ops.sat_kernels
_STEPS = {
    "Linf": _OPERATORS.act_backward_pgd_step_linf_.default._op,
    "L2": _OPERATORS.act_backward_pgd_step_l2_.default._op,
}
_perturbed, _perturbed_backward = (
    getattr(_OPERATORS, name).default._op for name in ("act_perturbed", "act_perturbed_backward")
)


def act_perturbed(z: Tensor, delta: Tensor, activation) -> Tensor:
    """f(z + delta) in one pass: z + delta is never written.

    Differentiable with respect to ``z``, ``delta`` and learnable numbers, any number of times; the backward pass is one
    pass, too.

    Args:
        z: floating tensor of any shape and strides.
        delta: of z's shape and device; float64 for a float64 z, else float32.
        activation: f. A name in :data:`sat_kernels.activations.ACTIVATIONS`, a tuple of name and numbers, or a module.

    Returns:
        Tensor of the shape and dtype of ``z``.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """
    row, numbers = named(activation)
    _check(z, delta)
    learns = row.learnable and any(isinstance(n, Tensor) and n.requires_grad for n in numbers)
    if not (has_kernel(z) and has_kernel(delta)) or (learns and torch.is_grad_enabled()):
        return activate(row, z + delta, numbers).to(z.dtype)
    numbers = as_kernel_numbers(row, numbers, z)
    if torch.is_grad_enabled() and (z.requires_grad or delta.requires_grad):
        return _Perturbed.apply(z, delta, row, numbers)
    return _perturbed(z, delta, *as_arguments(row, numbers))


class _Perturbed(Function):
    @staticmethod
    def forward(ctx, z, delta, row, numbers):
        ctx.save_for_backward(z, delta)
        ctx.row, ctx.numbers = row, numbers
        return _perturbed(z, delta, *as_arguments(row, numbers))

    @staticmethod
    def backward(ctx, grad):
        z, delta = ctx.saved_tensors
        if not torch.is_grad_enabled() and has_kernel(grad):
            found = _perturbed_backward(grad, z, delta, *as_arguments(ctx.row, ctx.numbers))
        else:
            moved = z + delta
            found = input_gradient(ctx.row, grad.to(moved.dtype), moved, ctx.numbers)
        needs_z, needs_delta, *_ = ctx.needs_input_grad
        return found.to(z.dtype) if needs_z else None, found.to(delta.dtype) if needs_delta else None, None, None


def act_backward_pgd_step_(
    grad_y: Tensor,
    z: Tensor,
    delta: Tensor,
    *,
    activation,
    eps: float | Tensor,
    alpha: float | Tensor,
    norm: str = "Linf",
    lo: float | Tensor | None = None,
    hi: float | Tensor | None = None,
    targeted: bool = False,
    grad_z: Tensor | None = None,
) -> Tensor:
    """One step of ``delta`` in y = f(z + delta), from the gradient at y, in place and in one kernel.

    With g = grad_y f'(z + delta): delta <- delta + alpha * direction(g), projected to the ball of radius ``eps`` around
    0, then to where lo <= z + delta <= hi. Directions as those of :func:`pgd_step_`. z + delta and g are not written.
    For attacks on latent features: Park and Lee, SLAT, arXiv 2104.01575.

    The result is inside in exact arithmetic, where lo <= z <= hi: ``eps`` and ``hi`` are rounded down and ``lo`` up to
    delta's dtype. Where g is NaN or 0 there is no step.

    Args:
        grad_y: gradient of the loss at y, of z's shape, dtype and device.
        z: (B, C, ...) or (B, ...) floating tensor.
        delta: of z's shape and device, changed in place; float64 for a float64 z, else float32. Any strides, no
            overlapping memory.
        activation: f, as in :func:`act_perturbed`.
        eps: radius >= 0, in the units of z; a number, or a tensor of one (0-d), one per sample, (B,) or (B, 1, ...),
            or, for Linf, one per sample and channel, (B or 1, C, 1, ...).
        alpha: step size; negative to descend; as ``eps``.
        norm: "Linf" or "L2", over all of a sample's elements.
        lo, hi: bounds of z + delta: numbers, tensors as those of ``eps``, also per channel, or None.
        targeted: descend.
        grad_z: g is written to it, too, so that back-propagation can go on; of z's shape, dtype and device.

    Returns:
        ``delta``.

    Raises:
        TypeError, ValueError: an argument is not as above; nothing is changed.
    """
    row, numbers = named(activation)
    _check(z, delta)
    if norm not in _STEPS:
        raise ValueError(f"norm={norm!r}: expected 'Linf' or 'L2'")
    written = {"delta": delta}
    for name, tensor in (("grad_y", grad_y), ("grad_z", grad_z)):
        if tensor is not None:
            checks.check_dense(name, tensor)
            _check_like(name, tensor, z)
    if grad_z is not None:
        written["grad_z"] = grad_z
    if norm == "L2" and z.dim() == 0:
        raise ValueError("z has no dimensions: expected (B, ...)")
    checks.check_memory(written, {"grad_y": grad_y, "z": z})
    number, of = sizes.radius("eps", eps, delta, norm)
    step, step_of = sizes.length("alpha", alpha, delta, norm)
    if targeted:
        step, step_of = -step, None if step_of is None else -step_of
    low, low_of = sizes.bound("lo", lo, delta, upper=False)
    high, high_of = sizes.bound("hi", hi, delta, upper=True)
    if low_of is None and high_of is None and low > high:
        raise ValueError(f"lo={lo}, hi={hi}: expected lo <= hi, with a number of {delta.dtype} between them")
    with torch.no_grad():
        numbers = as_kernel_numbers(row, numbers, z)
        if all(has_kernel(t) and not t.is_neg() for t in (z, delta, *written.values())):
            _STEPS[norm](
                grad_y,
                z,
                delta,
                *as_arguments(row, numbers),
                number,
                step,
                of,
                step_of,
                low,
                high,
                low_of,
                high_of,
                grad_z,
            )
            for tensor in written.values():
                torch.autograd.graph.increment_version(tensor)
            return delta
        eps, alpha, lo, hi = (
            sizes.spread(number, of, delta)
            for number, of in ((number, of), (step, step_of), (low, low_of), (high, high_of))
        )
        return _plain_step(grad_y, z, delta, row, numbers, eps, alpha, norm, lo, hi, grad_z)


def _plain_step(grad_y, z, delta, row: Activation, numbers, eps, alpha, norm, lo, hi, grad_z) -> Tensor:
    moved = z + delta
    grad = input_gradient(row, grad_y.to(moved.dtype), moved, numbers)
    if grad_z is not None:
        grad_z.copy_(grad)
    center = torch.zeros_like(delta)
    if norm == "Linf":
        stepped = reference.pgd_step(delta, grad, center, eps, alpha, -math.inf, math.inf, None)
    else:
        from .perturbation import reference_norms

        stepped = reference_norms.pgd_step_l2(delta, grad, center, eps, alpha, -math.inf, math.inf, None)
    z = z.to(delta.dtype)
    low, high = reference.rounded_sum(lo, -z, math.inf), reference.rounded_sum(hi, -z, -math.inf)
    stepped = torch.where(stepped < low, low, stepped)
    return delta.copy_(torch.where(stepped > high, high, stepped))


def _check(z, delta) -> None:
    for name, tensor in (("z", z), ("delta", delta)):
        checks.check_dense(name, tensor)
    if z.dtype not in checks.FLOATS:
        raise TypeError(f"z is {z.dtype}: expected one of {', '.join(map(str, checks.FLOATS))}")
    dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
    if delta.dtype != dtype:
        raise TypeError(f"delta is {delta.dtype}: expected {dtype} for z's {z.dtype}")
    if delta.shape != z.shape:
        raise ValueError(f"delta has shape {tuple(delta.shape)}: expected z's, {tuple(z.shape)}")
    if delta.device != z.device:
        raise ValueError(f"delta is on {delta.device}: expected z's device, {z.device}")


def _check_like(name: str, tensor: Tensor, z: Tensor) -> None:
    if tensor.dtype != z.dtype:
        raise TypeError(f"{name} is {tensor.dtype}: expected z's dtype, {z.dtype}")
    if tensor.shape != z.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected z's, {tuple(z.shape)}")
    if tensor.device != z.device:
        raise ValueError(f"{name} is on {tensor.device}: expected z's device, {z.device}")
