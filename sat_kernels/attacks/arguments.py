"""Checks of what attacks are given. Values of CUDA tensors are not looked at, since that would wait for the device."""

import contextlib
import warnings
from collections.abc import Collection
from numbers import Integral, Real

import torch
from torch import Tensor

from ..ops import random_start
from .engine import PARTS, has_bf16
from .isolation import MODES
from .published import STEPS

# Of an attack's call, past that of the attack's own and what looks at the names of its arguments.
_CALLER = 4


def check_settings(
    model, eps, alpha, steps, norm, clip_min, clip_max, restarts, init, mode, precision, generator, flags: dict
) -> None:
    """``flags``: those that are True or False, by name."""
    if not callable(model):
        raise TypeError(f"model is a {type(model).__name__}: expected a callable, such as an nn.Module")
    _check_size("eps", eps)
    _check_size("alpha", alpha)
    check_integer("steps", steps, 0)
    check_integer("restarts", restarts, 1)
    check_box(clip_min, clip_max)
    for name, value, known in (
        ("norm", norm, ("Linf", "L2", "L1")),
        ("mode", mode, MODES),
        ("precision", precision, ("fp32", "bf16")),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected {' or '.join(map(repr, known))}")
    check_flags(flags)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator={generator!r}: expected a torch.Generator or None")
    if not flags["feasible"] and norm not in STEPS:
        raise ValueError(f"feasible=False with norm={norm!r}: expected 'Linf' or 'L2', as torchattacks has them")
    random_start(torch.zeros(1, 1), eps=0.0, init=init, seed=0, norm=norm)  # refuses names that it does not know


def check_flags(flags: dict) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r}: expected True or False")


def check_integer(name: str, value, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r}: expected an integer >= {least}")


def check_box(clip_min, clip_max) -> None:
    for name, value in (("clip_min", clip_min), ("clip_max", clip_max)):
        if not isinstance(value, Real):
            raise ValueError(f"{name}={value!r}: expected a number")
    if not clip_min <= clip_max:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected clip_min <= clip_max")


def check_lowering(lower) -> None:
    names = () if isinstance(lower, bool) else lower
    # In the tuple, since what is not hashable is in no set.
    if isinstance(names, str) or not isinstance(names, Collection) or not all(name in PARTS for name in names):
        raise ValueError(f"lower={lower!r}: expected True, False or some of {', '.join(map(repr, PARTS))}")


def check_precision(precision: str, device: torch.device) -> None:
    if precision == "bf16" and not has_bf16(device):
        text = f"precision='bf16': this {device.type} has no bf16 arithmetic, so gradients are computed in fp32"
        warnings.warn(text, stacklevel=_CALLER)


def multiple(factor: float, eps):
    """factor eps, for attacks whose step size that is."""
    _check_size("eps", eps)
    return factor * eps


def _check_size(name: str, value) -> None:
    if not isinstance(value, Tensor):
        if not isinstance(value, Real) or not value >= 0:
            raise ValueError(f"{name}={value!r}: expected a number >= 0, or a tensor of one per sample")
    elif not value.is_floating_point() or (value.device.type == "cpu" and not (value >= 0).all()):
        raise ValueError(f"{name}={value}: expected a floating tensor of numbers >= 0, one per sample")


@contextlib.contextmanager
def dtypes_noted(model, x: Tensor):
    """Adds to errors of torch, which speak of types alone, whose types do not go together."""
    try:
        yield
    except RuntimeError as error:
        parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
        dtypes = {p.dtype for p in parameters if p.is_floating_point()}
        is_about_them = "type" in str(error) and dtypes and x.dtype not in dtypes
        if is_about_them and hasattr(error, "add_note"):  # Python 3.11
            found = ", ".join(sorted(map(str, dtypes)))
            error.add_note(f"x is {x.dtype}, and the model's parameters are {found}: expected the same dtype")
        raise


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
        is_integer = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
        if not is_integer or labels.shape != x.shape[:1]:
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
            stacklevel=_CALLER,
        )
