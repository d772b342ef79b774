"""Activations as operators are given them: by name, by name and numbers, or as modules."""

from torch.nn import Module

from ..activations import ACTIVATIONS, Activation

_MODULES = {row.module: row for row in ACTIVATIONS.values()}
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
    row = next((_MODULES[cls.__name__] for cls in type(activation).__mro__ if cls.__name__ in _MODULES), None)
    if row is None:
        raise ValueError(f"activation={activation}: {_EXPECTED}")
    if row.module == "GELU":
        row = ACTIVATIONS["gelu_tanh" if activation.approximate == "tanh" else "gelu"]
    return row, tuple(getattr(activation, p.name) for p in row.parameters)


def _row(name: str, given) -> Activation:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={given!r}: {_EXPECTED}")
    return ACTIVATIONS[name]


def as_arguments(row: Activation, numbers: tuple) -> tuple:
    """What raw operators take: the name, two numbers and two tensors."""
    given = numbers + (0.0,) * (2 - len(numbers)) if not row.learnable else (0.0, 0.0)
    tensors = numbers + (None,) * (2 - len(numbers)) if row.learnable else (None, None)
    return (row.name, *given, *tensors)
