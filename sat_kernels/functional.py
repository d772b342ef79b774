"""The smooth activations as functions, with torch's own signatures where torch has them.

Every function takes a floating tensor of any shape, strides and device and returns one of the same shape, dtype and
memory format. Derivatives of first and second order run as one kernel each. Under ``torch.compile`` the functions are
plain PyTorch, so that the compiler fuses them.
"""

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .activations import ACTIVATIONS, Activation
from .ops.activation import activate
from .ops.latent import act_perturbed

_GELU = {"none": ACTIVATIONS["gelu"], "tanh": ACTIVATIONS["gelu_tanh"]}


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), or its tanh form with ``approximate="tanh"``. As :func:`torch.nn.functional.gelu`.

    Raises:
        ValueError: ``approximate`` is neither "none" nor "tanh".
    """
    if has_torch_function_unary(input):
        return handle_torch_function(gelu, (input,), input, approximate=approximate)
    if approximate not in _GELU:
        raise ValueError(f"approximate={approximate!r}: expected 'none' or 'tanh'")
    return activate(_GELU[approximate], input)


# A function per row, written out so that it has its own signature at no cost per call.
_SOURCE = """
def {name}(input: Tensor{signature}) -> Tensor:
    if has_torch_function_unary(input):
        return handle_torch_function({name}, (input,), input{keywords})
    return activate(ACTIVATIONS["{name}"], input, ({numbers}){inplace})
"""


def _define(row: Activation) -> None:
    kind = "float | Tensor" if row.learnable else "float"
    arguments = [(p.name, kind, p.default) for p in row.parameters] + [("inplace", "bool", False)] * row.inplace
    source = _SOURCE.format(
        name=row.name,
        signature="".join(f", {name}: {kind} = {default}" for name, kind, default in arguments),
        keywords="".join(f", {name}={name}" for name, *_ in arguments),
        numbers="".join(f"{p.name}, " for p in row.parameters),
        inplace=", inplace" * row.inplace,
    )
    # In this module's own namespace: torch.compile looks global names up by the module's name.
    exec(compile(source, f"<sat_kernels.functional.{row.name}>", "exec"), globals())
    globals()[row.name].__doc__ = _docstring(row)


def _docstring(row: Activation) -> str:
    lines = [row.doc]
    if hasattr(torch.nn.functional, row.name):
        lines[0] += f" As :func:`torch.nn.functional.{row.name}`."
    elif row.parameters:
        lines += ["", "Args:"]
        each = ", or tensor of one element or one per channel (dimension 1), on the input's device" * row.learnable
        lines += [f"    {p.name}: {p.domain.text}{each}." for p in row.parameters]
        lines += [
            "",
            "Raises:",
            "    ValueError: a number is not as above, or a tensor has another number of elements.",
        ]
    return "\n".join(lines) + "\n"


__all__ = ["act_perturbed", "gelu"]
for _row in ACTIVATIONS.values():
    if _row not in _GELU.values():
        _define(_row)
        __all__ += [_row.name]
