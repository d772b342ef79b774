"""The smooth activations as functions, with torch's own signatures where torch has them.

Every function takes a floating tensor of any shape, strides and device and returns one of the same shape,
dtype and memory format. Derivatives of first and second order run as one kernel each. Under
``torch.compile`` the functions are plain PyTorch, so that the compiler fuses them.
"""

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .activations import ACTIVATIONS
from .ops.activation import activate

__all__ = ["celu", "elu", "gelu", "mish", "parametric_softplus", "silu", "smooth_relu", "softplus"]

_SILU, _MISH, _SOFTPLUS = ACTIVATIONS["silu"], ACTIVATIONS["mish"], ACTIVATIONS["softplus"]
_ELU, _CELU = ACTIVATIONS["elu"], ACTIVATIONS["celu"]
_GELU = {"none": ACTIVATIONS["gelu"], "tanh": ACTIVATIONS["gelu_tanh"]}
_PARAMETRIC_SOFTPLUS, _SMOOTH_RELU = ACTIVATIONS["parametric_softplus"], ACTIVATIONS["smooth_relu"]


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x). As :func:`torch.nn.functional.silu`."""
    if has_torch_function_unary(input):
        return handle_torch_function(silu, (input,), input, inplace=inplace)
    return activate(_SILU, input, (), inplace)


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


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x where beta * x > threshold. As :func:`torch.nn.functional.softplus`."""
    if has_torch_function_unary(input):
        return handle_torch_function(softplus, (input,), input, beta=beta, threshold=threshold)
    return activate(_SOFTPLUS, input, (beta, threshold))


def parametric_softplus(input: Tensor, alpha: float | Tensor = 10.0) -> Tensor:
    """log(1 + exp(alpha * x)) / alpha (Xie et al., arXiv 2006.14536, section 3), with a gradient for alpha.

    Args:
        alpha: positive number, or tensor of one element on the input's device.

    Raises:
        ValueError: ``alpha`` is a number <= 0 or a tensor of more than one element.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(parametric_softplus, (input,), input, alpha=alpha)
    return activate(_PARAMETRIC_SOFTPLUS, input, (alpha,))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1). As :func:`torch.nn.functional.elu`."""
    if has_torch_function_unary(input):
        return handle_torch_function(elu, (input,), input, alpha=alpha, inplace=inplace)
    return activate(_ELU, input, (alpha,), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x / alpha) - 1). As :func:`torch.nn.functional.celu`.

    Raises:
        RuntimeError: ``alpha`` is 0.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(celu, (input,), input, alpha=alpha, inplace=inplace)
    if alpha == 0:
        raise RuntimeError("alpha=0: CELU divides by alpha, expected another number")
    return activate(_CELU, input, (alpha,), inplace)


def smooth_relu(input: Tensor, beta: float | Tensor = 400.0) -> Tensor:
    """x - log(1 + beta * x) / beta where x > 0, else 0 (Xie et al., arXiv 2006.14536), with a gradient for beta.

    Args:
        beta: positive number, or tensor of one element on the input's device.

    Raises:
        ValueError: ``beta`` is a number <= 0 or a tensor of more than one element.
    """
    if has_torch_function_unary(input):
        return handle_torch_function(smooth_relu, (input,), input, beta=beta)
    return activate(_SMOOTH_RELU, input, (beta,))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)). As :func:`torch.nn.functional.mish`."""
    if has_torch_function_unary(input):
        return handle_torch_function(mish, (input,), input, inplace=inplace)
    return activate(_MISH, input, (), inplace)
