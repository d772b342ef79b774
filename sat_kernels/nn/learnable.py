"""Modules of the activations with learnable parameters."""

import inspect
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import functional
from ..activations import Activation, Parameter

# PSSiLU divides by 1 - beta.
_LARGEST_FRACTION = 0.999


def _at_most(value: Tensor, largest: float) -> Tensor:
    """With slope 1 everywhere: clamp's 0 would not let the value return."""
    return value - (value - largest).clamp(min=0).detach()


class _Storage(NamedTuple):
    """How a parameter is kept: ``raw`` of a value, and the value of a raw one."""

    raw: Callable[[float], float]
    value: Callable[[Tensor], Tensor]


_STORAGES = {
    "": _Storage(float, lambda raw: raw),
    "square": _Storage(math.sqrt, lambda raw: raw.square()),
    "magnitude": _Storage(float, lambda raw: raw.abs()),
    "fraction": _Storage(float, lambda raw: _at_most(raw.abs(), _LARGEST_FRACTION)),
}


def _attribute(parameter: Parameter) -> str:
    return f"raw_{parameter.name}" if parameter.stored else parameter.name


class LearnableActivation(torch.nn.Module):
    """What they have in common; each class has its ``row`` of the table."""

    row: Activation

    def __init__(self, values: dict[str, float], learnable: bool | None, num_parameters: int, device, dtype):
        super().__init__()
        self.learnable, self.num_parameters = learnable, _checked_count(num_parameters)
        for parameter in self.row.parameters:
            value = values[parameter.name]
            self.row.check(parameter, value)
            number = _STORAGES[parameter.stored].raw(value)
            raw = torch.full((self.num_parameters,), number, device=device, dtype=dtype)
            learned = parameter.learned if learnable is None else learnable
            if learned and parameter.stored in ("magnitude", "fraction") and not raw.is_meta and raw[0] == 0:
                name = parameter.name
                raise ValueError(f"{name}={value} is 0 in {raw.dtype}, where it cannot learn: expected a number > 0")
            if learned:
                setattr(self, _attribute(parameter), torch.nn.Parameter(raw))
            else:
                self.register_buffer(_attribute(parameter), raw)

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input, *[getattr(self, parameter.name) for parameter in self.row.parameters])

    def extra_repr(self) -> str:
        shown = []
        for parameter in self.row.parameters:
            value = getattr(self, parameter.name)
            one = self.num_parameters == 1 and not value.is_meta
            shown.append(f"{parameter.name}={value.item():.6g}" if one else parameter.name)
        if self.num_parameters > 1:
            shown.append(f"num_parameters={self.num_parameters}")
        learned = [name.removeprefix("raw_") for name, _ in self.named_parameters()]
        return ", ".join([*shown, f"learnable={learned}"])


def _checked_count(num_parameters) -> int:
    try:
        count = 0 if isinstance(num_parameters, bool) else operator.index(num_parameters)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"num_parameters={num_parameters}: expected 1, or the number of channels")
    return count


def make_module(row: Activation, namespace: str) -> type[LearnableActivation]:
    """The module class of ``row``, which will be found in the Python module ``namespace``."""
    members = {
        "__module__": namespace,
        "__doc__": _docstring(row),
        "__init__": _constructor(row),
        "row": row,
        "function": staticmethod(getattr(functional, row.name)),
    }
    for parameter in row.parameters:
        if parameter.stored:
            members[parameter.name] = _value_of(parameter)
    return type(row.module, (LearnableActivation,), members)


def _value_of(parameter: Parameter) -> property:
    attribute, value = _attribute(parameter), _STORAGES[parameter.stored].value
    return property(lambda self: value(getattr(self, attribute)), doc=f"The value that ``{attribute}`` stands for.")


def _constructor(row: Activation) -> Callable[..., None]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    defaults = {p.name: p.default for p in row.parameters}
    defaults |= {"learnable": None, "num_parameters": 1, "device": None, "dtype": None}
    arguments = [inspect.Parameter(name, kind, default=value) for name, value in defaults.items()]
    signature = inspect.Signature([inspect.Parameter("self", kind), *arguments])

    def __init__(self, *args, **kwargs):
        try:
            given = signature.bind(self, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{row.module}: {error}") from None
        given.apply_defaults()
        _, *values, learnable, num_parameters, device, dtype = given.arguments.values()
        names = [parameter.name for parameter in row.parameters]
        LearnableActivation.__init__(
            self, dict(zip(names, values, strict=True)), learnable, num_parameters, device, dtype
        )

    __init__.__signature__ = signature
    return __init__


_STORED = {
    "": "kept as it is",
    "square": "kept as its square root ``raw_{name}``",
    "magnitude": "the magnitude of ``raw_{name}``",
    "fraction": f"the magnitude of ``raw_{{name}}``, at most {_LARGEST_FRACTION}",
}


def _docstring(row: Activation) -> str:
    arguments = [
        f"    {p.name}: {p.domain.text} to begin with; {_STORED[p.stored].format(name=p.name)}." for p in row.parameters
    ]
    published = ", ".join(p.name for p in row.parameters if p.learned) or "none"
    return "\n".join(
        [
            row.doc,
            "",
            "Args:",
            *arguments,
            f"    learnable: whether all, or none, are parameters (else buffers); None: as published ({published}).",
            "        Keep them out of weight decay.",
            "    num_parameters: 1, or the number of channels (dimension 1 of the input) for one of each per channel.",
            "    device, dtype: of the parameters.",
            "",
            "Shape: any floating tensor; the output has its shape and dtype.",
            "",
            "Raises:",
            "    ValueError: an argument is not as above.",
            "",
        ]
    )
