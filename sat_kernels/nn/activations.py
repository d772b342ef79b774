"""The activations as modules: torch's own classes with fused forwards, and those that torch lacks.

The latter are made from the rows of the table, but for those whose module does more than hold numbers.
"""

import torch
from torch import Tensor

from .. import functional as F
from ..activations import ACTIVATIONS
from .learnable import make_module
from .relu_smooth_backward import ReLUSmoothBackward


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


class Serf(torch.nn.Module):
    """x * erf(softplus(x)) (Nag et al., arXiv 2108.09598).

    Args:
        inplace: whether to overwrite the input.

    Shape: any floating tensor; the output has its shape and dtype.
    """

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.serf(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


__all__ = ["CELU", "ELU", "GELU", "Mish", "ReLUSmoothBackward", "Serf", "SiLU", "Softplus"]
for _row in ACTIVATIONS.values():
    if _row.learnable:
        globals()[_row.module] = make_module(_row, __name__)
        __all__ += [_row.module]
