"""Models that take normalised input, as models that take pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalized(torch.nn.Module):
    """``model`` after (x - mean) / std, so that attacks see pixels and eps means pixels.

    Args:
        model: takes normalised (B, C, ...) input.
        mean, std: one number per channel (or one for all), in the units of the pixels. They are kept on the
            device of the model's parameters, in float32 or, for a float64 model, in float64.

    Shape: (B, C, ...) floating; the output is the model's.

    Raises:
        ValueError: ``mean`` and ``std`` differ in length, or a ``std`` is not > 0.
    """

    def __init__(self, model: torch.nn.Module, mean: float | Sequence[float], std: float | Sequence[float]):
        super().__init__()
        parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
        like = next(parameters, torch.empty(0))
        dtype = torch.promote_types(like.dtype, torch.float32)
        mean, std = (torch.as_tensor(v, dtype=dtype).detach().reshape(-1) for v in (mean, std))
        if mean.shape != std.shape:
            raise ValueError(f"mean has {mean.numel()} numbers and std {std.numel()}: expected one each per channel")
        if not (std > 0).all():
            raise ValueError(f"std={std.tolist()}: expected numbers > 0")
        self.model = model
        self.register_buffer("mean", mean.to(like.device), persistent=False)
        self.register_buffer("std", std.to(like.device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(self.normalize(x))

    def normalize(self, x: Tensor) -> Tensor:
        """(x - mean) / std."""
        channels = self.mean.numel()
        if x.dim() < 2 or channels not in (1, x.shape[1]):
            raise ValueError(f"x has shape {tuple(x.shape)}: expected (B, {channels}, ...)")
        shape = (-1, *(1,) * (x.dim() - 2))
        return (x - self.mean.reshape(shape)) / self.std.reshape(shape)

    def extra_repr(self) -> str:
        return f"mean={self.mean.tolist()}, std={self.std.tolist()}"
