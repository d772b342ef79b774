"""Convolutions for input gradients; on a CPU with weights in oneDNN's own layout, to which plain calls reorder them
each time: 7 % of a pass of ResNet-18. winograd.py has others."""

import torch
from torch import Tensor

_reorder = torch.ops.mkldnn._reorder_convolution_weight if torch.backends.mkldnn.is_available() else None
_convolve = torch.ops.mkldnn._convolution_pointwise if torch.backends.mkldnn.is_available() else None


def packs(x: Tensor, groups: int) -> bool:
    """Whether :class:`PackedConv2d` takes ``x``."""
    return (
        _reorder is not None
        and torch.backends.mkldnn.enabled
        and x.is_cpu
        and x.dtype is torch.float32
        and groups == 1
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def input_gradient(shape: torch.Size, weight: Tensor, grad: Tensor, stride, padding, dilation, groups: int) -> Tensor:
    """That of a convolution. torch.nn.grad.conv2d_input() has the input's memory filled: 2 % of a pass of ResNet-18."""
    layout = torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    unread = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    geometry = (stride, padding, dilation, False, (0, 0), groups)
    return torch.ops.aten.convolution_backward(grad, unread, weight, None, *geometry, (True, False, False))[0]


class PackedConv2d:
    """The convolution by ``weight``, and its gradient at the input, of inputs such as ``x``."""

    def __init__(self, x: Tensor, weight: Tensor, stride, padding, dilation):
        self._weight, self._geometry = weight, (padding, stride, dilation, 1)
        self._packed = _reorder(weight, *self._geometry, x.shape)
        # With a stride of 1 the gradient is a convolution, too, by the weight turned around.
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        self._back = [r - p for r, p in zip(reach, padding, strict=True)]
        self._is_convolution = tuple(stride) == (1, 1) and min(self._back) >= 0
        self._turned: Tensor | None = None

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _convolve(x, self._packed, bias, *self._geometry, "none", [], "")

    def input_gradient(self, shape: torch.Size, grad: Tensor) -> Tensor:
        padding, stride, dilation, groups = self._geometry
        if not (self._is_convolution and packs(grad, 1)):
            return input_gradient(shape, self._weight, grad, stride, padding, dilation, groups)
        geometry = (self._back, (1, 1), dilation, 1)
        if self._turned is None:
            turned = self._weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
            self._turned = _reorder(turned, *geometry, grad.shape)
        return _convolve(grad, self._turned, None, *geometry, "none", [], "")
