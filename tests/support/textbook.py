"""The activations by their definitions: in as many digits as it takes with mpmath, and in float64 with torch."""

import functools
import math

import mpmath as mp
import torch
from torch.nn.functional import softplus

# Each activation with the numbers that the tests give it.
CASES = [
    ("silu", ()),
    ("swish", (1.0,)),
    ("swish", (10.0,)),
    ("swish", (-1.0,)),
    ("gelu", ()),
    ("gelu_tanh", ()),
    ("softplus", (1.0, 20.0)),
    ("softplus", (2.5, 20.0)),
    ("softplus", (-1.0, 20.0)),
    ("parametric_softplus", (1.0,)),
    ("parametric_softplus", (10.0,)),
    ("elu", (1.0,)),
    ("elu", (1.7,)),
    ("celu", (1.0,)),
    ("celu", (0.5,)),
    ("smooth_relu", (4.0,)),
    ("smooth_relu", (400.0,)),
    ("mish", ()),
    ("squareplus", (4.0,)),
    ("squareplus", (0.01,)),
    ("serf", ()),
    ("smu", (0.25, 1.3)),
    ("smu", (0.0, 0.7)),
    ("smu", (0.25, 1e6)),
    ("pssilu", (1.0, 1e-8)),
    ("pssilu", (1.5, 0.2)),
    ("relu_smooth_backward", (10.0,)),
]
IDS = [f"{name}{numbers or ''}".replace(" ", "") for name, numbers in CASES]
# Whose second derivative jumps at 0.
KINKED = ("elu", "celu", "smooth_relu")


class Jet:
    """A number that depends on a variable, with its first and second derivative."""

    def __init__(self, value, first=0, second=0):
        self.value, self.first, self.second = value, first, second

    def apply(self, value, first, second):
        """The function of this number that has this value and these derivatives."""
        return Jet(value, first * self.first, second * self.first**2 + first * self.second)

    def __add__(self, other):
        other = jet(other)
        return Jet(self.value + other.value, self.first + other.first, self.second + other.second)

    def __mul__(self, other):
        other = jet(other)
        second = self.value * other.second + 2 * self.first * other.first + self.second * other.value
        return Jet(self.value * other.value, self.value * other.first + self.first * other.value, second)

    def __truediv__(self, other):
        other = jet(other)
        v = other.value
        return self * other.apply(1 / v, -1 / v**2, 2 / v**3)

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __rtruediv__(self, other):
        return jet(other) / self

    def __gt__(self, other):
        return self.value > jet(other).value

    __radd__, __rmul__ = __add__, __mul__


def jet(number):
    return number if isinstance(number, Jet) else Jet(number)


def exp(x):
    y = mp.exp(jet(x).value)
    return jet(x).apply(y, y, y)


def log1p(x):
    v = jet(x).value
    return jet(x).apply(mp.log1p(v), 1 / (1 + v), -1 / (1 + v) ** 2)


def sqrt(x):
    y = mp.sqrt(jet(x).value)
    return jet(x).apply(y, 1 / (2 * y), -1 / (4 * y**3))


def tanh(x):
    y = mp.tanh(jet(x).value)
    return jet(x).apply(y, 1 - y**2, -2 * y * (1 - y**2))


def erf(x, function=mp.erf):
    v = jet(x).value
    slope = 2 / mp.sqrt(mp.pi) * mp.exp(-(v**2))
    return jet(x).apply(function(v), slope, -2 * v * slope)


def one_plus_erf(x):
    """For negative x, 1 + erf(x) would take as many digits more as it is small."""
    return erf(x, lambda v: mp.erfc(-v))


def _softplus(x, beta):
    return log1p(exp(beta * x)) / beta


DEFINITIONS = {
    "silu": lambda x: x / (1 + exp(-x)),
    "swish": lambda x, beta: x / (1 + exp(-(beta * x))),
    "gelu": lambda x: x * one_plus_erf(x / mp.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x * (1 + tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x * x * x))) / 2,
    "softplus": lambda x, beta, threshold: x if beta * x > threshold else _softplus(x, beta),
    "parametric_softplus": _softplus,
    "elu": lambda x, alpha: x if x > 0 else alpha * (exp(x) - 1),
    "celu": lambda x, alpha: x if x > 0 else alpha * (exp(x / alpha) - 1),
    "smooth_relu": lambda x, beta: x - log1p(beta * x) / beta if x > 0 else 0 * x,
    "mish": lambda x: x * tanh(_softplus(x, 1)),
    "squareplus": lambda x, b: (x + sqrt(x * x + b)) / 2,
    "serf": lambda x: x * erf(_softplus(x, 1)),
    "smu": lambda x, alpha, mu: alpha * x + (1 - alpha) * x * one_plus_erf(mu * (1 - alpha) * x) / 2,
    "pssilu": lambda x, alpha, beta: x * (1 / (1 + exp(-(alpha * x))) - beta) / (1 - beta),
    "relu_smooth_backward": lambda x, alpha: x if x > 0 else 0 * x,
}
# What is differentiated in place of the definition.
DIFFERENTIATED = {**DEFINITIONS, "relu_smooth_backward": _softplus}


@functools.cache
def exact(name: str, numbers: tuple, x: float, variable: int = 0) -> tuple[float, float, float]:
    """Value, first and second derivative at x; ``variable``: 0 for x, k for the k-th of ``numbers``."""
    found = None
    for digits in (50, 100, 200, 400, 800):
        with mp.workdps(digits):
            arguments = [mp.mpf(a) for a in (x, *numbers)]
            value = jet(DEFINITIONS[name](*arguments)).value
            arguments[variable] = Jet(arguments[variable], 1)
            derived = jet(DIFFERENTIATED[name](*arguments))
            before, found = found, (value, derived.first, derived.second)
            # An exact 0 may be what is left of a difference whose digits all cancel.
            if before and all(a != 0 and abs(a - b) <= abs(b) * 1e-25 for a, b in zip(found, before, strict=True)):
                break
    return tuple(float(v) for v in found)


def float64(name: str, numbers: tuple, x: torch.Tensor, order: int = 0) -> torch.Tensor:
    """The value, or what is differentiated from order 1 on, in forms of which torch's derivatives are right, too."""
    relu = torch.where(x > 0, x, torch.zeros_like(x))
    if name in ("softplus", "parametric_softplus") or (name == "relu_smooth_backward" and order > 0):
        smooth = softplus(x * numbers[0], threshold=700.0) / numbers[0]
        return torch.where(x * numbers[0] > numbers[1], x, smooth) if name == "softplus" else smooth
    if name == "smooth_relu":
        t = numbers[0] * relu
        return torch.where(t < 1e-4, t * t / 2 - t**3 / 3 + t**4 / 4, t - torch.log1p(t)) / numbers[0]
    if name == "squareplus":
        h = (torch.where(x >= 0, x, -x) + torch.sqrt(x * x + numbers[0])) / 2
        return torch.where(x >= 0, h, numbers[0] / (4 * h))
    if name == "smu":
        alpha, mu = numbers
        return alpha * x + (1 - alpha) * x * torch.special.erfc(-mu * (1 - alpha) * x) / 2
    return {
        "silu": lambda: x * torch.sigmoid(x),
        "swish": lambda b: x * torch.sigmoid(b * x),
        "gelu": lambda: x * torch.special.erfc(-x / math.sqrt(2)) / 2,
        "gelu_tanh": lambda: x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
        "elu": lambda a: torch.where(x > 0, x, a * torch.expm1(x.clamp(max=0))),
        "celu": lambda a: torch.where(x > 0, x, a * torch.expm1(x.clamp(max=0) / a)),
        "mish": lambda: x * torch.tanh(softplus(x, threshold=700.0)),
        "serf": lambda: x * torch.erf(softplus(x, threshold=700.0)),
        "pssilu": lambda a, b: x * (torch.sigmoid(a * x) - b) / (1 - b),
        "relu_smooth_backward": lambda a: relu,
    }[name](*numbers)


def derivative64(name: str, numbers: tuple, x: torch.Tensor, order: int) -> torch.Tensor:
    x = x.double().requires_grad_()
    y = float64(name, numbers, x, order)
    for _ in range(order):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.detach()


def slopes64(name: str, numbers: tuple, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """df/dp at every element of x, for each of the numbers p; these may be tensors of x's shape."""
    x = x.double()
    numbers = tuple(torch.as_tensor(p).double().expand(x.shape).clone().requires_grad_() for p in numbers)
    return torch.autograd.grad(float64(name, numbers, x).sum(), numbers)


def largest_second(name: str, numbers: tuple) -> float:
    """max |f''|."""
    first = abs(numbers[0]) if numbers else 1.0
    if name == "smu":
        return 2 * abs(numbers[1]) * (1 - numbers[0]) ** 2 / math.sqrt(math.pi)
    if name == "pssilu":
        return first / (2 * (1 - numbers[1]))
    constants = {"silu": 0.5, "gelu": 0.798, "gelu_tanh": 0.798, "mish": 0.645, "serf": 0.712, "elu": first}
    factors = {"swish": 0.5, "softplus": 0.25, "parametric_softplus": 0.25, "relu_smooth_backward": 0.25}
    others = {"smooth_relu": first, "celu": 1 / first, "squareplus": 0.5 / math.sqrt(first)}
    return {**constants, **{k: v * first for k, v in factors.items()}, **others}[name]


def ulp(value: float, dtype: torch.dtype) -> float:
    """Distance from |value| to the next number of ``dtype``."""
    info = torch.finfo(dtype)
    return math.ldexp(info.eps, math.frexp(max(abs(value), info.tiny))[1] - 1)


def ulps(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    info = torch.finfo(dtype)
    exponent = torch.frexp(values.double().abs().clamp(min=info.tiny))[1] - 1
    return torch.ldexp(torch.full_like(values, info.eps, dtype=torch.float64), exponent)
