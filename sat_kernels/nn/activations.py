"""The activations as modules: torch's own classes with fused forwards, and those that torch lacks."""

import torch
from torch import Tensor

from .. import functional as F


class SiLU(torch.nn.SiLU):
    __doc__ = torch.nn.SiLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class GELU(torch.nn.GELU):
    __doc__ = torch.nn.GELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class Softplus(torch.nn.Softplus):
    __doc__ = torch.nn.Softplus.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class ELU(torch.nn.ELU):
    __doc__ = torch.nn.ELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class CELU(torch.nn.CELU):
    __doc__ = torch.nn.CELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class Mish(torch.nn.Mish):
    __doc__ = torch.nn.Mish.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class _Sharpness(torch.nn.Module):
    """An activation with one positive sharpness, kept as its square root so that it stays positive."""

    def __init__(self, name: str, value: float, learnable: bool, device, dtype):
        super().__init__()
        if not value > 0:
            raise ValueError(f"{name}={value}: expected a number > 0")
        self._sharpness, self.learnable = name, learnable
        raw = torch.full((), value, device=device, dtype=dtype).sqrt()
        if learnable:
            self.raw = torch.nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw)

    def extra_repr(self) -> str:
        value = "?" if self.raw.is_meta else f"{self.raw.item() ** 2:.6g}"
        return f"{self._sharpness}={value}, learnable={self.learnable}"


class SmoothReLU(_Sharpness):
    """x - log(1 + beta * x) / beta where x > 0, else 0, with beta = raw^2 (Xie et al., arXiv 2006.14536).

    The authors' code learns one raw value per layer, initially 20; hence the default.

    Args:
        beta: sharpness > 0 to begin with. As beta grows, the function approaches ReLU.
        learnable: whether ``raw`` is a parameter (else a buffer). Keep it out of weight decay.

    Shape: any floating tensor; the output has its shape and dtype.

    Raises:
        ValueError: ``beta`` is not > 0.
    """

    def __init__(self, beta: float = 400.0, learnable: bool = True, device=None, dtype=None):
        super().__init__("beta", beta, learnable, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.smooth_relu(input, self.raw.square())


class ParametricSoftplus(_Sharpness):
    """log(1 + exp(alpha * x)) / alpha, with alpha = raw^2 (Xie et al., arXiv 2006.14536, section 3).

    Args:
        alpha: sharpness > 0 to begin with; the paper's gradient study uses 10.
        learnable: whether ``raw`` is a parameter (else a buffer). Keep it out of weight decay.

    Shape: any floating tensor; the output has its shape and dtype.

    Raises:
        ValueError: ``alpha`` is not > 0.
    """

    def __init__(self, alpha: float = 10.0, learnable: bool = False, device=None, dtype=None):
        super().__init__("alpha", alpha, learnable, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.parametric_softplus(input, self.raw.square())
