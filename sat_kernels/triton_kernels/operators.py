"""The operators as csrc/operators.h has them: checks, layouts, allocation, and the launches."""

import ctypes

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import elementwise
from .formulas import formula

# Elements of a tile: 16 bytes of a 16-bit type for each of 128 threads. Tiles of sums are larger, since each writes
# a number per parameter and channel, which are read again.
TILE, SUMS_TILE, WARPS = 1024, 4096, 4
# Of them side by side in memory, so that 16-bit numbers fill a cache line.
LINE = 64


def is_dense(t: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, each place once, in whatever order of dimensions."""
    if t.is_contiguous() or t.numel() == 0:
        return True
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(t.stride(), t.shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def dense(t: Tensor) -> Tensor:
    return t if is_dense(t) else torch.empty_like(t).copy_(t)


def laid_out_as(reference: Tensor, t: Tensor) -> Tensor:
    """``t`` itself if it has the layout of ``reference``, which is dense; else a copy that does."""
    pairs = zip(t.shape, t.stride(), reference.stride(), strict=True)
    if all(mine == other or size == 1 for size, mine, other in pairs):
        return t
    return torch.empty_like(reference, dtype=t.dtype).copy_(t)


def check_like(name: str, t: Tensor, reference_name: str, reference: Tensor) -> None:
    for what, differs in (
        ("differs in shape from", t.shape != reference.shape),
        ("is on another device than", t.device != reference.device),
    ):
        if differs:
            raise RuntimeError(f"{name} {what} {reference_name}: expected the same")


def check_grad(name: str, grad: Tensor, input: Tensor) -> None:
    check_like(name, grad, "input", input)
    if grad.dtype != input.dtype:
        raise RuntimeError(f"{name} differs in dtype from input: expected the same")


COMPUTE = {
    torch.float32: (torch.float32, tl.float32),
    torch.float64: (torch.float64, tl.float64),
    torch.bfloat16: (torch.float32, tl.float32),
    torch.float16: (torch.float32, tl.float32),
}


def compute_type(t: Tensor) -> tuple[torch.dtype, tl.dtype]:
    """The type that the kernels compute in, torch's and Triton's."""
    if t.dtype not in COMPUTE:
        raise RuntimeError("sat_kernels: expected a float32, float64, bfloat16 or float16 tensor")
    return COMPUTE[t.dtype]


def check_parameters(parameters: tuple[Tensor, ...], input: Tensor) -> None:
    channels = parameters[0].numel()
    if channels != 1 and (input.ndim < 2 or input.shape[1] != channels):
        raise RuntimeError("parameters: expected one element, or as many as input has channels (dimension 1)")
    if any(p.numel() != channels for p in parameters):
        raise RuntimeError("parameters: expected as many elements in each")
    dtype = compute_type(input)[0]
    if any(p.device != input.device or not p.is_contiguous() or p.dtype != dtype for p in parameters):
        raise RuntimeError(
            "parameters: expected contiguous tensors on input's device, float64 for float64, else float32"
        )


def bits(number: float, dtype: torch.dtype) -> int:
    """The bits of ``number`` rounded to ``dtype``, which is float32 or float64."""
    if dtype == torch.float64:
        return ctypes.c_int64.from_buffer(ctypes.c_double(number)).value
    return ctypes.c_int32.from_buffer(ctypes.c_float(number)).value


def run(name: str, forms: str, tensors: dict[str, Tensor], numbers: tuple, grads: tuple[Tensor, ...] = ()) -> None:
    """A pass of activation ``name`` over dense ``tensors`` of one layout. ``forms``: the pass's name.

    ``grads``: where parameters' gradients go.
    """
    input = tensors["input"]
    dtype, compute = compute_type(input)
    parameters = tuple(number for number in numbers if isinstance(number, Tensor))
    if parameters:
        check_parameters(parameters, input)
    if input.numel() == 0:
        for grad in grads:
            grad.zero_()
        return
    second = {"double_backward": "second", "parameter_backward": "parameters"}.get(forms)
    constants = {
        "PASS": forms,
        "F": formula(name, "value" if forms == "forward" else "derivative"),
        "G": formula(name, second) if second else None,
        "PARAMETERS": len(parameters),
        "COMPUTE": compute,
        # Gradients of parameters are float32, whatever the input is.
        "FAST": input.element_size() == 2 and not grads,
    }
    channels = parameters[0].numel() if parameters else 1
    pointers = [tensors.get(key) for key in ("grad_grad", "grad", "input", "out", "grad_out")]
    size, tile = input.numel(), SUMS_TILE if grads else TILE
    if parameters:
        pointers += [parameters[0], parameters[-1]]
    else:
        pointers += [bits(number, dtype) for number in (*numbers, 0.0, 0.0)[:2]]
    with torch.cuda.device_of(input):
        if channels == 1:
            splits = tiles = triton.cdiv(size, tile)
            sums = _partial_sums(splits, channels, grads)
            elementwise.flat[(tiles,)](
                *pointers, sums, splits, size, **constants, SIZE=tile, TAIL=size % tile != 0, **options(tile)
            )
        else:
            inner = input.stride(1)
            outer = size // (channels * inner)
            box = box_of(outer, channels, inner, tile)
            counts = [triton.cdiv(n, m) for n, m in zip((outer, channels, inner), box, strict=True)]
            splits = counts[0] * counts[2]
            sums = _partial_sums(splits, channels, grads)
            elementwise.per_channel[(splits * counts[1],)](
                *pointers, sums, splits * channels, outer, channels, inner, **constants,
                OUTER=box[0], CHANNELS=box[1], INNER=box[2], **options(tile),
            )  # fmt: skip
        if grads:
            add_up(sums, grads, splits, channels)


def options(tile: int) -> dict:
    # Contraction does not decide whether the results are within their targets, but they should not change with
    # Triton's default, which does in 3.10.
    return {"num_warps": WARPS * max(1, tile // 2 // TILE), "enable_fp_fusion": True}


def _partial_sums(splits: int, channels: int, grads: tuple[Tensor, ...]) -> Tensor | None:
    return grads[0].new_empty(len(grads), splits, channels) if grads else None


def add_up(sums: Tensor, grads: tuple[Tensor, ...], splits: int, channels: int) -> None:
    rows = min(triton.next_power_of_2(splits), SUMS_TILE // min(triton.next_power_of_2(channels), LINE // 2))
    columns = min(triton.next_power_of_2(channels), SUMS_TILE // rows)
    elementwise.add_up[(triton.cdiv(channels, columns), len(grads))](
        sums, grads[0], grads[-1], splits * channels, splits, channels, SPLITS=rows, CHANNELS=columns,
        **options(SUMS_TILE),
    )  # fmt: skip


def box_of(outer: int, channels: int, inner: int, size: int) -> tuple[int, int, int]:
    """A box of about ``size`` elements of (outer, channels, inner) memory, as far as possible side by side; but where
    channels are, no more than a line of them, since each box has a sum for each."""
    across = min(triton.next_power_of_2(inner), size)
    rows = min(triton.next_power_of_2(channels), max(1, LINE // across))
    depth = min(triton.next_power_of_2(outer), size // (across * rows))
    # What is left where there are few in the outermost dimension.
    rows = min(triton.next_power_of_2(channels), size // (across * depth))
    return depth, rows, across


def forward(name: str, input: Tensor, *numbers) -> Tensor:
    input = dense(input)
    out = torch.empty_like(input)
    run(name, "forward", {"input": input, "out": out}, numbers)
    return out


def forward_(name: str, input: Tensor, *numbers) -> None:
    values = dense(input)
    run(name, "forward", {"input": values, "out": values}, numbers)
    if values is not input:
        input.copy_(values)


def backward(name: str, grad: Tensor, input: Tensor, *numbers) -> Tensor:
    check_grad("grad_output", grad, input)
    input = dense(input)
    out = torch.empty_like(input)
    run(name, "backward", {"grad": laid_out_as(input, grad), "input": input, "out": out}, numbers)
    return out


def double_backward(name: str, grad_grad: Tensor, grad: Tensor, input: Tensor, *numbers) -> tuple[Tensor, Tensor]:
    check_grad("grad_grad_input", grad_grad, input)
    check_grad("grad_output", grad, input)
    input = dense(input)
    tensors = {"grad_grad": laid_out_as(input, grad_grad), "grad": laid_out_as(input, grad), "input": input}
    grad_out, out = torch.empty_like(input), torch.empty_like(input)
    run(name, "double_backward", {**tensors, "grad_out": grad_out, "out": out}, numbers)
    return grad_out, out


def parameter_backward(name: str, grad: Tensor, input: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    check_grad("grad_output", grad, input)
    input = dense(input)
    out, grads = torch.empty_like(input), tuple(torch.empty_like(p) for p in parameters)
    tensors = {"grad": laid_out_as(input, grad), "input": input, "out": out}
    run(name, "parameter_backward", tensors, parameters, grads)
    return out, *grads
