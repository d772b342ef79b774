"""How far the kernels may be from the definitions."""

import math

import torch
from textbook import largest_second, ulp, ulps


def tolerance(name: str, numbers: tuple, x: float, dtype: torch.dtype, order: int, value: float) -> float:
    """For the derivative of that order, in float32 or float64.

    In ulp for values. Rounding the argument z of the exponential costs |z| ulp in a tail, whatever the form; and where
    sigmoid is a denormal number, x times its last digit.
    """
    scale = 1.0 if dtype == torch.float32 else 2.0**-29
    if order > 0:
        return scale * (3e-7 if order == 1 else 6e-7 * largest_second(name, numbers))
    if name == "relu_smooth_backward":
        return 0.0
    if name == "pssilu":  # it has a zero away from 0
        return scale * 4e-7 * max(1, abs(x))
    units = 8.0 if name == "mish" else 6.0
    if name == "gelu":
        units += 2 * x * x
    elif name == "gelu_tanh":
        units += 4 * abs(1.6 * (x + 0.0447 * x**3))
    elif name in ("softplus", "parametric_softplus") or (name == "swish" and abs(numbers[0]) != 1):
        units += abs(numbers[0] * x)
    elif name == "smu" and numbers[0] == 0:
        units += 4 * (numbers[1] * x) ** 2
    return units * ulp(value, dtype) + min(abs(x), 1e3) * ulp(0.0, dtype)


def slope_tolerance(name: str, numbers: tuple, k: int, x: torch.Tensor, dtype: torch.dtype, value: torch.Tensor):
    """For df/dp, p being the k-th parameter, at the elements of x.

    Where z is above 71 (float64: 671) the kernels take sigmoid(-z) to be 0.
    """
    size = value.abs()
    tail = 3e-31 if dtype == torch.float32 else 1e-291
    if name == "smu":
        z = numbers[1] * (1 - numbers[0]) * x
        units = 8 + 4 * (z * z).clamp(max=200)
        if k == 0:  # two summands that cancel at z = 0.53
            density = torch.exp(-z * z) / math.sqrt(math.pi)
            size = torch.where(z > 0, x.abs() * (torch.special.erfc(z) / 2 + z * density), size)
    elif name in ("smooth_relu", "squareplus"):
        units = 8.0
    else:
        units = 8 + (numbers[0] * x).abs().clamp(max=800)
    return units * ulps(size, dtype) + (x * x).clamp(max=1e6) * max(tail, ulp(0.0, dtype))
