"""Activations as operators are given them: by name, by name and numbers, or as modules."""

from torch.nn import Module

from ..activations import ACTIVATIONS, Activation

_MODULES = {row.module: row for row in ACTIVATIONS.values()}
_HOMES = ("torch.nn.modules.activation", "sat_kernels.nn.activations", "sat_kernels.nn.relu_smooth_backward")
_EXPECTED = f"expected one of {', '.join(ACTIVATIONS)}; or (name, *numbers); or the module of one"


def named(activation) -> tuple[Activation, tuple]:
    """The row of the table, and its numbers: the defaults, or those that are given.

    Raises:
        TypeError, ValueError: ``activation`` is not as above.
    """
    if isinstance(activation, str):
        row = _row(activation, activation)
        return row, row.defaults
    if isinstance(activation, tuple) and activation and isinstance(activation[0], str):
        return _row(activation[0], activation), activation[1:]
    if not isinstance(activation, Module):
        raise TypeError(f"activation is a {type(activation).__name__}: {_EXPECTED}")
    row = row_of(activation)
    if row is None:
        raise ValueError(f"activation={activation}: {_EXPECTED}")
    return row, tuple(getattr(activation, p.name) for p in row.parameters)


def row_of(module: Module) -> Activation | None:
    """The row of the activation that the module computes, if it is one: a subclass with another ``forward`` is not."""
    for cls in type(module).__mro__:
        if cls.__module__ in _HOMES and cls.__name__ in _MODULES and type(module).forward is cls.forward:
            if cls.__name__ == "GELU":
                return ACTIVATIONS["gelu_tanh" if module.approximate == "tanh" else "gelu"]
            return _MODULES[cls.__name__]
    return None


def _row(name: str, given) -> Activation:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={given!r}: {_EXPECTED}")
    return ACTIVATIONS[name]


def as_arguments(row: Activation, numbers: tuple) -> tuple:
    """What raw operators take: the name, two numbers and two tensors."""
    given = numbers + (0.0,) * (2 - len(numbers)) if not row.learnable else (0.0, 0.0)
    tensors = numbers + (None,) * (2 - len(numbers)) if row.learnable else (None, None)
    return (row.name, *given, *tensors)
