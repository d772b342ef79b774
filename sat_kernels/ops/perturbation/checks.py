"""What the steps refuse. Values of CUDA tensors are not looked at, since that would wait for the device."""

import torch
from torch import Tensor

from ..overlap import overlaps, overlaps_itself

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OUT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_tensors(x_adv: Tensor, x: Tensor, grads: dict[str, Tensor], changed: dict[str, Tensor]) -> None:
    """``grads`` may be of any floating type; ``changed`` are written, beside x_adv."""
    others = {**grads, "x": x, **changed}
    check_dense("x_adv", x_adv)
    dtype = x_adv.dtype
    for name, tensor in others.items():
        check_dense(name, tensor)
    if dtype not in FLOATS[:2]:
        raise TypeError(f"x_adv is {dtype}: expected torch.float32 or torch.float64")
    for name, tensor in others.items():
        if name not in grads:
            if tensor.dtype != dtype:
                raise TypeError(f"{name} is {tensor.dtype}: expected x_adv's dtype, {dtype}")
        elif tensor.dtype not in FLOATS:
            raise TypeError(f"{name} is {tensor.dtype}: expected one of {', '.join(map(str, FLOATS))}")
        check_like(name, tensor, x_adv)
    if x_adv.is_meta:
        raise TypeError("x_adv is a meta tensor: expected one with data")


def check_dense(name: str, tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}: expected a tensor")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise TypeError(f"{name} is a {'nested' if tensor.is_nested else tensor.layout} tensor: expected a dense one")


def check_like(name: str, tensor: Tensor, x_adv: Tensor) -> None:
    if tensor.shape != x_adv.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected x_adv's, {tuple(x_adv.shape)}")
    check_device(name, tensor, x_adv)


def check_device(name: str, tensor: Tensor, x_adv: Tensor) -> None:
    if tensor.device != x_adv.device:
        raise ValueError(f"{name} is on {tensor.device}: expected x_adv's device, {x_adv.device}")


def check_memory(written: dict[str, Tensor], read: dict[str, Tensor]) -> None:
    """Whatever is written has memory of its own, and needs no gradient."""
    before = {}
    for name, tensor in written.items():
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name} requires grad and the step has no derivative: expected {name}.detach() or no_grad()"
            )
        if overlaps_itself(tensor):
            raise ValueError(
                f"{name} overlaps itself (strides {tensor.stride()}): expected memory of its own per element"
            )
        for others in (before, read):
            for other, against in others.items():
                if overlaps(tensor, against):
                    raise ValueError(f"{other} shares memory with {name}, which is written: expected another tensor")
        before[name] = tensor


def checked_mask(mask, x_adv: Tensor) -> Tensor:
    """``mask`` in x_adv's shape."""
    check_dense("mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask is {mask.dtype}: expected torch.bool")
    check_device("mask", mask, x_adv)
    if mask.dim() > x_adv.dim() or any(
        size not in (1, wanted) for size, wanted in zip(reversed(mask.shape), reversed(x_adv.shape), strict=False)
    ):
        raise ValueError(f"mask has shape {tuple(mask.shape)}: expected one that broadcasts to {tuple(x_adv.shape)}")
    return mask.expand(x_adv.shape)


def checked_active(active, x_adv: Tensor) -> Tensor:
    check_dense("active", active)
    if active.dtype != torch.bool:
        raise TypeError(f"active is {active.dtype}: expected torch.bool")
    if x_adv.dim() == 0 or active.shape != x_adv.shape[:1]:
        raise ValueError(f"active has shape {tuple(active.shape)}: expected one per sample, {tuple(x_adv.shape[:1])}")
    check_device("active", active, x_adv)
    return active.contiguous()


def check_out(out, x_adv: Tensor) -> None:
    check_dense("out", out)
    if out.dtype not in OUT_DTYPES:
        raise TypeError(f"out is {out.dtype}: expected one of {', '.join(map(str, OUT_DTYPES))}")
    check_like("out", out, x_adv)
