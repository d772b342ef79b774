"""The table of activations: one row each, from which modules, functionals, tests and benchmarks are made.

A row's ``reference`` is the plain PyTorch formula. It is what runs under ``torch.compile`` (so that the
compiler can fuse it), on devices without a kernel, and under ``torch.func`` transforms.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def parametric_softplus(input: Tensor, alpha: Tensor) -> Tensor:
    # threshold 80 instead of torch's 20: exp(80) still fits float32, and the gradient at alpha does not
    # drop to zero from alpha * x = 20 on.
    x = _wide(input)
    return (F.softplus(x * alpha, threshold=80.0) / alpha).to(input.dtype)


def smooth_relu(input: Tensor, beta: Tensor) -> Tensor:
    # Unlike the kernel's form this one cancels for small beta * x: its error is one unit of x, not of the result.
    # The series that would mend it takes 7 times as long, compiled or not.
    x = F.relu(_wide(input))
    # Cut below infinity: inf - log1p(inf) would be NaN.
    return (x - torch.log1p((beta * x).clamp(max=1e30)) / beta).to(input.dtype)


def _wide(input: Tensor) -> Tensor:
    """float32 for 16-bit types: these formulas lose too much in between."""
    return input.float() if input.dtype in (torch.bfloat16, torch.float16) else input


@dataclass(frozen=True)
class Activation:
    """One activation.

    ``name`` names the operator (``sat_kernels::<name>``) and what ``nn.replace_activations`` accepts.
    ``parameters`` are the names of its numbers, in the operator's order, with ``defaults``. A ``learnable``
    activation takes them as 0-d tensors and has gradients for them. ``module`` and ``module_arguments``
    make its ``sat_kernels.nn`` module.
    """

    name: str
    reference: Callable[..., Tensor]
    module: str
    parameters: tuple[str, ...] = ()
    defaults: tuple[float, ...] = ()
    learnable: bool = False
    module_arguments: dict = field(default_factory=dict)


ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in (
        Activation("silu", F.silu, "SiLU"),
        Activation("gelu", F.gelu, "GELU"),
        Activation("gelu_tanh", partial(F.gelu, approximate="tanh"), "GELU", module_arguments={"approximate": "tanh"}),
        Activation("softplus", F.softplus, "Softplus", ("beta", "threshold"), (1.0, 20.0)),
        Activation("parametric_softplus", parametric_softplus, "ParametricSoftplus", ("alpha",), (10.0,), True),
        Activation("elu", F.elu, "ELU", ("alpha",), (1.0,)),
        Activation("celu", F.celu, "CELU", ("alpha",), (1.0,)),
        Activation("smooth_relu", smooth_relu, "SmoothReLU", ("beta",), (400.0,), True),
        Activation("mish", F.mish, "Mish"),
    )
}
