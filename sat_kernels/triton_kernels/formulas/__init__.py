"""The formulas of csrc/formulas, as functions of x and an activation's two numbers (tensors of the type that is
computed in, of which some are not used): ``<activation>_value``, ``_derivative``, ``_second``, and for learnable ones
``_parameters``, df/dp. ``fast``: whether the result is rounded to 16 bits."""

from . import normal_family, piecewise_family, serf, sigmoid_family, softplus_family

_FAMILIES = (normal_family, piecewise_family, serf, sigmoid_family, softplus_family)


def formula(activation: str, part: str):
    """The function of that name."""
    name = f"{activation}_{part}"
    return next(vars(family)[name] for family in _FAMILIES if name in vars(family))
