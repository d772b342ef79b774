"""Checks of what attacks are given. Values of CUDA tensors are not looked at, since that would wait for the device."""

import warnings
from collections.abc import Collection
from numbers import Integral, Real

import torch
from torch import Tensor

from ..ops import random_start
from .engine import PARTS, has_bf16
from .isolation import MODES
from .published import STEPS


def check_settings(
    model, eps, alpha, steps, norm, clip_min, clip_max, restarts, init, mode, precision, feasible
) -> None:
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}: expected a callable, such as an nn.Module")
    _check_size("eps", eps)
    _check_size("alpha", alpha)
    for name, value, least in (("steps", steps, 0), ("restarts", restarts, 1)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name}={value!r}: expected an integer >= {least}")
    if not clip_min <= clip_max:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected clip_min <= clip_max")
    for name, value, known in (
        ("norm", norm, ("Linf", "L2", "L1")),
        ("mode", mode, MODES),
        ("precision", precision, ("fp32", "bf16")),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected {' or '.join(map(repr, known))}")
    if not feasible and norm not in STEPS:
        raise ValueError(f"feasible=False with norm={norm!r}: expected 'Linf' or 'L2', as torchattacks has them")
    random_start(torch.zeros(1, 1), eps=0.0, init=init, seed=0, norm=norm)  # refuses names that it does not know


def check_lowering(lower, compile) -> None:
    names = () if isinstance(lower, bool) else lower
    if isinstance(names, str) or not isinstance(names, Collection) or not set(names) <= set(PARTS):
        raise ValueError(f"lower={lower!r}: expected True, False or some of {', '.join(map(repr, PARTS))}")
    if not isinstance(compile, bool):
        raise ValueError(f"compile={compile!r}: expected True or False")


def check_precision(precision: str, device: torch.device) -> None:
    if precision == "bf16" and not has_bf16(device):
        text = f"precision='bf16': this {device.type} has no bf16 arithmetic, so gradients are computed in fp32"
        warnings.warn(text, stacklevel=3)


def _check_size(name: str, value) -> None:
    if not isinstance(value, Tensor):
        if not isinstance(value, Real) or not value >= 0:
            raise ValueError(f"{name}={value!r}: expected a number >= 0, or a tensor of one per sample")
    elif not value.is_floating_point() or (value.device.type == "cpu" and not (value >= 0).all()):
        raise ValueError(f"{name}={value}: expected a floating tensor of numbers >= 0, one per sample")


def check_call(x, y, sample_ids, sizes: dict, targeted: bool, clip_min: float, clip_max: float) -> None:
    """``sizes``: eps and alpha, by name."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x is {found}: expected a float32 or float64 tensor in [{clip_min}, {clip_max}]")
    if x.dim() < 1:
        raise ValueError("x has no dimensions: expected (B, ...)")
    for name, size in sizes.items():
        if isinstance(size, Tensor) and (size.shape != x.shape[:1] or size.device != x.device):
            raise ValueError(
                f"{name} is {tuple(size.shape)} on {size.device}: expected a number, or one per sample, "
                f"{tuple(x.shape[:1])} on {x.device}"
            )
    if y is None and targeted:
        raise ValueError("y=None with targeted=True: expected the (B,) classes to reach")
    for name, labels in (("y", y), ("sample_ids", sample_ids)):
        if labels is None:
            continue
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != x.shape[:1]:
            found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"{name} is {found}: expected {x.shape[0]} integers")
    if x.numel() == 0 or x.device.type != "cpu":
        return
    low, high = (v.item() for v in x.aminmax())
    if not clip_min <= low <= high <= clip_max:
        warnings.warn(
            f"x has values in [{low}, {high}], outside the box [{clip_min}, {clip_max}]: results are "
            "clipped to the box. If the model takes normalised input, attack "
            "attacks.Normalized(model, mean, std) with pixels instead.",
            stacklevel=3,
        )
