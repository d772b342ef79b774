"""What lowered models are made of. Blocks keep for the backward pass only what an input gradient needs."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module

from ...ops.affine_act import affine_act_
from . import winograd
from .convolutions import PackedConv2d, input_gradient, packs


class Layer(Module):
    """A convolution or linear layer without gradients for its weights, which are static and computed elsewhere.

    ``winograd``: whether Winograd's algorithm may be used; :attr:`uses_winograd`, whether it has been.
    """

    def __init__(self, source: Module, weight: Tensor, bias: Tensor | None, winograd: bool):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.geometry = ()
        if weight.dim() == 4:
            self.geometry = (source.stride, source.padding, source.dilation, source.groups)
        self._may_use_winograd = winograd
        self._packed: PackedConv2d | None = None
        self._winograd: winograd.WinogradConv2d | None = None

    @property
    def uses_winograd(self) -> bool:
        return self._winograd is not None

    def changed(self) -> None:
        """The weight has other values."""
        self._packed = None
        if self._winograd is not None:
            self._winograd.changed()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if self._is_for_winograd(x):
            if torch.compiler.is_compiling():
                return self._winograd.in_graph(x, self.bias)
            if self._winograd is None:
                self._winograd = winograd.WinogradConv2d(self.weight, self.geometry[1])
            return _Prepared.apply(x, self._winograd, self.bias)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if not self.geometry:
            return F.linear(x, self.weight, bias)  # which does not keep x
        if torch.compiler.is_compiling():  # which has its own rules for what is kept
            return F.conv2d(x, self.weight, bias, *self.geometry)
        *geometry, groups = self.geometry
        if not packs(x, groups):
            return _Conv2d.apply(x, self.weight, bias, *self.geometry)
        if self._packed is None:
            self._packed = PackedConv2d(x, self.weight, *geometry)
        return _Prepared.apply(x, self._packed, bias)

    def _is_for_winograd(self, x: Tensor) -> bool:
        # What compilers see has been called before, when it was compared with the model.
        usable = self._may_use_winograd and self.geometry and (self._winograd or not torch.compiler.is_compiling())
        return bool(usable) and winograd.takes(x, self.weight, *self.geometry)


class _Conv2d(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, *geometry):
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = x.shape, geometry
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        return input_gradient(ctx.shape, weight, grad, *ctx.geometry), *(None,) * 6


class _Prepared(Function):
    @staticmethod
    def forward(ctx, x, convolution, bias):
        ctx.shape, ctx.convolution = x.shape, convolution
        return convolution.forward(x, bias)

    @staticmethod
    def backward(ctx, grad):
        return ctx.convolution.input_gradient(ctx.shape, grad), None, None


class Affine(Module):
    """A frozen batch norm."""

    def __init__(self, scale: Tensor, shift: Tensor):
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        column = (-1, *(1,) * (x.dim() - 2))
        return torch.addcmul(self.shift.view(column), x, self.scale.view(column)).to(x.dtype)


class Tail(Module):
    """(z + residual, f(norm(z + residual + bias))): what follows a convolution.

    Args:
        activation: as :func:`sat_kernels.ops.affine_act_` takes it, or "relu".
        norm: the frozen batch norm between sum and activation, if there is one.
        bias: that of the convolution, if it has left it to this.
        owned: whether z's memory may be written to.
        sum_is_used: elsewhere.
    """

    def __init__(self, activation, norm: Affine | None, bias: Tensor | None, owned: bool, sum_is_used: bool):
        super().__init__()
        self.norm, self.owned, self.sum_is_used = norm, owned, sum_is_used
        self.register_buffer("bias", bias)
        self._activation = (activation,)  # not as a part of this

    def forward(self, z: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (activation,) = self._activation
        fits = residual is None or (residual.shape == z.shape and residual.dtype == z.dtype)
        if residual is not None and not (self.owned and fits):
            z, residual = z + residual, None
        if activation == "relu":
            return self._relu(z, residual)
        norm = {} if self.norm is None else {"scale": self.norm.scale, "shift": self.norm.shift}
        y = affine_act_(z, activation=activation, bias=self.bias, residual=residual, **norm)
        return z, y

    def _relu(self, z: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.bias is not None:
            z.add_(self.bias.view(-1, *(1,) * (z.dim() - 2)))
        if residual is not None:
            z.add_(residual)
        if self.norm is not None:
            return z, self.norm(z).relu_()
        # In place it keeps its result alone.
        return z, (torch.relu_ if self.owned and not self.sum_is_used else torch.relu)(z)
