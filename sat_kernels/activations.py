"""The table of activations: one row each, from which functionals, modules, tests and benchmarks are made.

A row's ``reference`` is the plain PyTorch formula. It is what runs under ``torch.compile`` (so that the compiler can
fuse it), on devices without a kernel, and under ``torch.func`` transforms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from . import formulas


class Domain(NamedTuple):
    """The numbers that make sense for a parameter, and their description."""

    contains: Callable[[float], bool]
    text: str


ANY = Domain(lambda value: True, "a number")
FINITE = Domain(math.isfinite, "a finite number")
NONZERO = Domain(lambda value: value != 0, "a number other than 0")
POSITIVE = Domain(lambda value: 0 < value < math.inf, "a number > 0")
FRACTION = Domain(lambda value: 0 <= value < 1, "a number in [0, 1)")


@dataclass(frozen=True)
class Parameter:
    """One number of an activation.

    ``stored``: how a module keeps a learnable one, so that it stays in its domain; a key of ``nn.learnable``.
    ``learned``: whether a module learns it unless told otherwise, which is as published.
    """

    name: str
    default: float
    domain: Domain = ANY
    stored: str = ""
    learned: bool = True


@dataclass(frozen=True)
class Activation:
    """One activation.

    ``name`` names the operator (``sat_kernels::<name>``), the function in ``sat_kernels.functional`` and what
    ``nn.replace_activations`` accepts. A ``learnable`` one takes its parameters as tensors, of one element or one per
    channel, and has gradients for them. ``module`` and ``module_arguments`` make its ``sat_kernels.nn`` module.
    ``inplace``: whether the function has that argument. ``doc``: formula and source.
    """

    name: str
    module: str
    reference: Callable[..., Tensor]
    doc: str
    parameters: tuple[Parameter, ...] = ()
    learnable: bool = False
    inplace: bool = False
    module_arguments: dict = field(default_factory=dict)

    @property
    def defaults(self) -> tuple[float, ...]:
        return tuple(parameter.default for parameter in self.parameters)

    def check(self, parameter: Parameter, value: float) -> None:
        """Raises TypeError where ``value`` is no number, ValueError where it is not in the parameter's domain."""
        try:
            number = None if isinstance(value, (Tensor, str)) else float(value)
        except (TypeError, ValueError):
            number = None
        if number is None or not parameter.domain.contains(number):
            error = TypeError if number is None else ValueError
            raise error(f"{parameter.name}={value}: {self.name} expects {parameter.domain.text}")

    def plain(self, input: Tensor, *parameters) -> Tensor:
        """``reference`` with parameters of one element, or of one per channel (dimension 1 of ``input``)."""
        if self.learnable:
            others = (1,) * (input.ndim - 2)
            parameters = [p.reshape(() if p.numel() == 1 else (p.numel(), *others)) for p in parameters]
        return self.reference(input, *parameters)


ACTIVATIONS: dict[str, Activation] = {
    row.name: row
    for row in (
        Activation("silu", "SiLU", F.silu, "x * sigmoid(x).", inplace=True),
        Activation(
            "swish",
            "Swish",
            formulas.swish,
            "x * sigmoid(beta * x) (Ramachandran et al., arXiv 1710.05941).",
            (Parameter("beta", 1.0, FINITE),),
            learnable=True,
        ),
        Activation("gelu", "GELU", F.gelu, "x * Phi(x)."),
        Activation(
            "gelu_tanh",
            "GELU",
            partial(F.gelu, approximate="tanh"),
            "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2.",
            module_arguments={"approximate": "tanh"},
        ),
        Activation(
            "softplus",
            "Softplus",
            F.softplus,
            "log(1 + exp(beta * x)) / beta; x where beta * x > threshold.",
            (Parameter("beta", 1.0), Parameter("threshold", 20.0)),
        ),
        Activation(
            "parametric_softplus",
            "ParametricSoftplus",
            formulas.parametric_softplus,
            "log(1 + exp(alpha * x)) / alpha (Xie et al., arXiv 2006.14536, section 3).",
            (Parameter("alpha", 10.0, POSITIVE, "square", learned=False),),
            learnable=True,
        ),
        Activation(
            "elu", "ELU", F.elu, "x where x > 0, else alpha * (exp(x) - 1).", (Parameter("alpha", 1.0),), inplace=True
        ),
        Activation(
            "celu",
            "CELU",
            F.celu,
            "x where x > 0, else alpha * (exp(x / alpha) - 1).",
            (Parameter("alpha", 1.0, NONZERO),),
            inplace=True,
        ),
        Activation(
            "smooth_relu",
            "SmoothReLU",
            formulas.smooth_relu,
            "x - log(1 + beta * x) / beta where x > 0, else 0 (Xie et al., arXiv 2006.14536).",
            (Parameter("beta", 400.0, POSITIVE, "square"),),
            learnable=True,
        ),
        Activation("mish", "Mish", F.mish, "x * tanh(softplus(x)).", inplace=True),
        Activation(
            "squareplus",
            "Squareplus",
            formulas.squareplus,
            "(x + sqrt(x^2 + b)) / 2 (Barron, arXiv 2112.11687).",
            (Parameter("b", 4.0, POSITIVE, "square", learned=False),),
            learnable=True,
        ),
        Activation("serf", "Serf", formulas.serf, "x * erf(softplus(x)) (Nag et al., arXiv 2108.09598).", inplace=True),
        Activation(
            "smu",
            "SMU",
            formulas.smu,
            "((1 + alpha) * x + (1 - alpha) * x * erf(mu * (1 - alpha) * x)) / 2 (Biswas et al., arXiv 2111.04682).",
            (Parameter("alpha", 0.25, FINITE, learned=False), Parameter("mu", 1e6, FINITE)),
            learnable=True,
        ),
        Activation(
            "pssilu",
            "PSSiLU",
            formulas.pssilu,
            "x * (sigmoid(alpha * x) - beta) / (1 - beta) (Dai et al., arXiv 2110.05626).",
            (Parameter("alpha", 1.0, POSITIVE, "magnitude"), Parameter("beta", 1e-8, FRACTION, "fraction")),
            learnable=True,
        ),
        Activation(
            "relu_smooth_backward",
            "ReLUSmoothBackward",
            formulas.relu_smooth_backward,
            "max(x, 0), whose gradient is taken to be sigmoid(alpha * x) (Xie et al., arXiv 2006.14536, section 3).",
            (Parameter("alpha", 10.0, POSITIVE),),
            inplace=True,
        ),
    )
}
