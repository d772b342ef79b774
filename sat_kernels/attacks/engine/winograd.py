"""Convolutions by 3x3 filters with a stride of 1, by Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): a
quarter of the multiplications of a direct convolution. On CPUs."""

import torch
from torch import Tensor
from torch.autograd import Function

from ..._extension import KERNELS

# Numbers of channels and filters are multiples of it: two vectors of the widest registers.
MULTIPLE = 32
# Tiles that are multiplied together; with fewer samples most of the work would be for nothing.
_LEAST_TILES = 12
# How many times fewer multiplications there have to be, since tiles reach beyond an image's edges: the rest of the time
# is that of transformations.
_LEAST_SAVING = 2

_conv2d = torch.ops.sat_kernels.winograd_conv2d.default._op
_conv2d_in_graphs = torch.ops.sat_kernels.winograd_conv2d.default
_weight = torch.ops.sat_kernels.winograd_weight_.default._op
_HAS_KERNEL = KERNELS.get("cpu") == "cpu"
# Tiles of bf16 matrices are an instruction there, several times as fast as this in float32.
_HAS_AMX = torch.cpu._is_amx_tile_supported()


def usable(dtype: torch.dtype) -> bool:
    """Whether this machine has a kernel for images of ``dtype``, and nothing better."""
    return _HAS_KERNEL and (dtype is torch.float32 or (dtype is torch.bfloat16 and not _HAS_AMX))


def takes(x: Tensor, weight: Tensor, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups: int = 1) -> bool:
    """Whether :class:`WinogradConv2d` takes the place of that convolution of ``x``, and is faster."""
    if not tuple(stride) == tuple(dilation) == (1, 1) or groups != 1:
        return False
    if not (usable(x.dtype) and x.is_cpu and x.dim() == 4 and weight.shape[2:] == (3, 3)):
        return False
    if any(size % MULTIPLE for size in weight.shape[:2]) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    height, width = (size + 2 * p - 2 for size, p in zip(x.shape[2:], padding, strict=True))
    if height < 1 or width < 1 or max(padding) > 2:
        return False
    tiles = -(-height // 4) * -(-width // 4)
    return x.shape[0] * tiles >= _LEAST_TILES and 9 * height * width >= _LEAST_SAVING * 36 * tiles


class WinogradConv2d:
    """:class:`PackedConv2d`'s twin, for what :func:`takes` says.

    Args:
        weight: (filters, channels, 3, 3), float32 or bfloat16. Call :meth:`changed` when it has other values.
        padding: zeros around x, 0 to 2 in each dimension.
    """

    def __init__(self, weight: Tensor, padding: tuple[int, int]):
        self.weight, self.padding = weight, padding
        # Fresh memory for each attack would cost half as much as a pass.
        self._transformed, self._turned = (weight.new_empty(4 * weight.numel(), dtype=torch.float32) for _ in range(2))
        self.changed()

    def changed(self) -> None:
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        _weight(self._transformed, weight, False)
        _weight(self._turned, weight, True)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """(B, filters, H', W') of x's dtype, in channels_last; computed in float32."""
        bias = None if bias is None else bias.float()
        return _conv2d(x, self._transformed, bias, *self.padding)

    def input_gradient(self, shape: torch.Size, grad: Tensor) -> Tensor:
        """At the input, of that shape; ``grad``: (B, filters, H', W')."""
        grad = grad.contiguous(memory_format=torch.channels_last)
        return _conv2d(grad, self._turned, None, *(2 - p for p in self.padding))

    def in_graph(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """:meth:`forward`, differentiable at x, for compilers."""
        bias = None if bias is None else bias.float()
        return _InGraph.apply(x, self._transformed, self._turned, bias, *self.padding)


class _InGraph(Function):
    @staticmethod
    def forward(ctx, x, transformed, turned, bias, *padding):
        ctx.save_for_backward(turned)
        ctx.padding = padding
        return _conv2d_in_graphs(x, transformed, bias, *padding)

    @staticmethod
    def backward(ctx, grad):
        (turned,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        return _conv2d_in_graphs(grad, turned, None, *(2 - p for p in ctx.padding)), *(None,) * 5
