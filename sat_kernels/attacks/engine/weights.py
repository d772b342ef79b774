"""The tensors of lowered models: computed anew from the user's parameters and buffers before every attack."""

import torch
from torch import Tensor
from torch.nn import Module

from .blocks import Affine, Layer


class Weights:
    """Static storage for what layers and batch norms amount to."""

    def __init__(self, dtype: torch.dtype | None, channels_last: bool, wide_bias: bool, winograd: bool):
        """``dtype``: of the layers' weights, and of their biases unless ``wide_bias``; None: the model's own.
        ``winograd``: see :class:`Layer`."""
        self.dtype, self.wide_bias, self.winograd = dtype, wide_bias, winograd
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self._layers: list[tuple[Module, Module | None, Layer, Tensor | None]] = []
        self._norms: list[tuple[Module, Affine]] = []

    def layer(self, source: Module, norm: Module | None) -> Layer:
        """Of a convolution or a linear layer, and the batch norm that follows, if it is to be folded."""
        weight = torch.empty_like(source.weight, dtype=self.dtype, requires_grad=False)
        if weight.dim() == 4:
            weight = weight.contiguous(memory_format=self.layout)
        has_bias = norm is not None or source.bias is not None
        of_bias = source.weight.dtype if self.wide_bias else weight.dtype
        bias = weight.new_empty(weight.shape[0], dtype=of_bias) if has_bias else None
        made = Layer(source, weight, bias, self.winograd)
        self._layers.append((source, norm, made, bias))
        return made

    def norm(self, source: Module) -> Affine:
        made = Affine(torch.empty_like(source.running_var), torch.empty_like(source.running_var))
        self._norms.append((source, made))
        return made

    def tensors(self) -> list[Tensor]:
        layers = [t for _, _, made, bias in self._layers for t in (made.weight, bias) if t is not None]
        return layers + [t for _, made in self._norms for t in (made.scale, made.shift)]

    @property
    def winograd_layers(self) -> int:
        """How many layers have used Winograd's algorithm."""
        return sum(made.uses_winograd for _, _, made, _ in self._layers)

    @torch.no_grad()
    def refresh(self) -> None:
        """Reads all parameters and buffers: version counters would miss what is written through ``.data``."""
        norms = [norm for _, norm, _, _ in self._layers if norm is not None] + [norm for norm, _ in self._norms]
        found = iter(_scales_and_shifts(norms))
        targets, values = [], []
        for source, norm, made, bias in self._layers:
            value, shift = source.weight, source.bias
            if norm is not None:
                scale, shift = next(found)
                value = value * scale.view(-1, *(1,) * (value.dim() - 1))
                shift = shift if source.bias is None else torch.addcmul(shift, source.bias, scale)
            targets += [made.weight] if bias is None else [made.weight, bias]
            values += [value] if bias is None else [value, shift]
        for _, made in self._norms:
            targets += [made.scale, made.shift]
            values += next(found)
        if targets:
            torch._foreach_copy_(targets, values)
        for _, _, made, _ in self._layers:
            made.changed()


def _scales_and_shifts(norms: list[Module]) -> list[tuple[Tensor, Tensor]]:
    if not norms:
        return []
    scales = torch._foreach_add([norm.running_var for norm in norms], [norm.eps for norm in norms])
    torch._foreach_rsqrt_(scales)
    weighted = [i for i, norm in enumerate(norms) if norm.weight is not None]
    if weighted:
        torch._foreach_mul_([scales[i] for i in weighted], [norms[i].weight for i in weighted])
    shifts = torch._foreach_mul([norm.running_mean for norm in norms], scales)
    torch._foreach_neg_(shifts)
    biased = [i for i, norm in enumerate(norms) if norm.bias is not None]
    if biased:
        torch._foreach_add_([shifts[i] for i in biased], [norms[i].bias for i in biased])
    return list(zip(scales, shifts, strict=True))
