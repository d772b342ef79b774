"""What follows a convolution, as csrc/affine_act_operators.h has it: checks, layouts, launches."""

import ctypes

import torch
import triton
from torch import Tensor

from . import affine_act, operators
from .latent_operators import ActivationOf
from .operators import check_like, compute_type, dense, laid_out_as

# Columns of a box: less would not be read in whole cache sectors.
LEAST_COLUMNS = 16


def divisor(by: int) -> tuple[int, int]:
    """Of affine_act.quotient(): factor and shift, the factor's 32 bits as a signed number."""
    shift = (by - 1).bit_length()
    factor = ((1 << shift) - by) * 2**32 // by + 1
    return ctypes.c_int32(factor).value, shift


def _columns(count: int) -> int:
    """The largest power of two that divides ``count``, and that a box has room for."""
    return min(count & -count, operators.TILE)


def _wide(size: int) -> bool:
    return size >= 2**32


def _check_addend(name: str, t: Tensor, reference_name: str, reference: Tensor) -> None:
    check_like(name, t, reference_name, reference)
    if t.dtype != reference.dtype:
        raise RuntimeError(f"{name} differs in dtype from {reference_name}: expected the same")


def _check_vectors(vectors: dict[str, Tensor | None], input: Tensor) -> None:
    for name, t in vectors.items():
        if t is None:
            continue
        if input.dim() < 2 or t.numel() != input.shape[1]:
            raise RuntimeError(f"{name}: expected one element for each of the input's channels (dimension 1)")
        if t.device != input.device or not t.is_contiguous() or t.dtype != compute_type(input)[0]:
            raise RuntimeError(
                f"{name}: expected a contiguous tensor on the input's device, float64 for float64, else float32"
            )


def _run(part: str, grad, grad_sum, sum: Tensor, residual, bias, scale, shift, f: ActivationOf) -> Tensor:
    """``sum`` is dense; the others are laid out as it is. ``part``: of the formula."""
    out, size = torch.empty_like(sum), sum.numel()
    if size == 0:
        return out
    channels = sum.shape[1] if sum.dim() > 1 else 1
    inner = sum.stride(1) if channels > 1 else size
    by_channel = f.kind == 2 or any(t is not None for t in (bias, scale, shift))
    arguments = (grad, grad_sum, sum, residual, bias, scale, shift, out, *f.numbers)
    constants = f.constants(part) | {"COMPUTE": compute_type(sum)[1], "FAST": sum.element_size() == 2}
    constants |= operators.options(operators.TILE)
    columns = channels if inner == 1 else inner
    across, rows = _columns(columns), size // columns
    with torch.cuda.device_of(sum):
        if by_channel and across >= LEAST_COLUMNS and not _wide(rows):
            depth = operators.TILE // across
            affine_act.boxes[(triton.cdiv(rows, depth) * (columns // across),)](
                *arguments, rows, columns, channels, *divisor(channels), BY_ROWS=inner > 1, ROWS=depth, COLUMNS=across,
                TAIL=rows % depth != 0, **constants,
            )  # fmt: skip
        else:
            wide = by_channel and _wide(size)
            divisors = (0, 0, 0, 0) if wide or not by_channel else (*divisor(inner), *divisor(channels))
            affine_act.flat[(triton.cdiv(size, operators.TILE),)](
                *arguments, size, channels, inner, *divisors, CHANNELS=by_channel, WIDE=wide, SIZE=operators.TILE,
                TAIL=size % operators.TILE != 0, **constants,
            )  # fmt: skip
    return out


def affine_act_(input: Tensor, bias, residual, scale, shift, *activation) -> Tensor:
    compute_type(input)
    if residual is not None:
        _check_addend("residual", residual, "input", input)
    _check_vectors({"bias": bias, "scale": scale, "shift": shift}, input)
    f, sum = ActivationOf(*activation, input), dense(input)
    residual = None if residual is None else laid_out_as(sum, residual)
    out = _run("value", None, None, sum, residual, bias, scale, shift, f)
    if sum is not input and (bias is not None or residual is not None):
        input.copy_(sum)
    return out


def affine_act_backward(grad: Tensor, sum: Tensor, grad_sum, scale, shift, *activation) -> Tensor:
    compute_type(sum)
    _check_addend("grad", grad, "sum", sum)
    if grad_sum is not None:
        _check_addend("grad_sum", grad_sum, "sum", sum)
    _check_vectors({"scale": scale, "shift": shift}, sum)
    f, sum = ActivationOf(*activation, sum), dense(sum)
    grad = laid_out_as(sum, grad)
    grad_sum = None if grad_sum is None else laid_out_as(sum, grad_sum)
    return _run("derivative", grad, grad_sum, sum, None, None, scale, shift, f)
