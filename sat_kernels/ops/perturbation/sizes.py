"""Numbers of a step, as the raw operators take them."""

import functools
import math
from numbers import Integral, Real

import torch
from torch import Tensor

from .checks import check_device


def radius(name: str, value, x_adv: Tensor, norm: str) -> tuple[float, Tensor | None]:
    """``value`` as a number, or (samples or 1, channels or 1) numbers, in x_adv's dtype, rounded down to it."""
    found, of = step_size(name, value, x_adv, norm)
    if of is None:
        if found < 0:
            raise ValueError(f"{name}={value}: expected a number >= 0")
        return round_down(found, x_adv.dtype), None
    if of.device.type == "cpu" and (of < 0).any():
        raise ValueError(f"{name} holds {of.min().item()}: expected numbers >= 0")
    return 0.0, _rounded_down(of, x_adv.dtype)


def _rounded_down(of: Tensor, dtype: torch.dtype) -> Tensor:
    if of.dtype == dtype:
        return of
    rounded = of.to(dtype)
    down = torch.nextafter(rounded, torch.full_like(rounded, -math.inf))
    return torch.where(rounded.to(torch.float64) > of.to(torch.float64), down, rounded)


def length(name: str, value, x_adv: Tensor, norm: str) -> tuple[float, Tensor | None]:
    """As :func:`radius`, rounded to nearest, of any sign."""
    found, of = step_size(name, value, x_adv, norm)
    return found, of if of is None else of.to(x_adv.dtype)


def bound(name: str, value, x_adv: Tensor, upper: bool) -> tuple[float, Tensor | None]:
    """As :func:`radius`, of any sign, also per channel; rounded down if it is an ``upper`` one, else up. None: none."""
    if value is None:
        return (math.inf if upper else -math.inf), None
    sign = 1 if upper else -1
    found, of = step_size(name, value, x_adv, "Linf")
    if of is None:
        return sign * round_down(sign * found, x_adv.dtype), None
    return 0.0, sign * _rounded_down(sign * of, x_adv.dtype)


def step_size(name: str, value, x_adv: Tensor, norm: str) -> tuple[float, Tensor | None]:
    """A number, or numbers per sample and channel."""
    if not isinstance(value, Tensor):
        return number(name, value, " or a tensor"), None
    if not value.is_floating_point():
        raise TypeError(f"{name} is {value.dtype}: expected a floating tensor")
    check_device(name, value, x_adv)
    of = _per_sample_and_channel(name, value.detach(), x_adv)
    if norm != "Linf" and of.shape[1] != 1:
        raise ValueError(f"{name} has shape {tuple(value.shape)}: expected one number per sample, as norm={norm!r} has")
    if value.device.type == "cpu" and value.isnan().any():
        raise ValueError(f"{name} holds nan: expected numbers")
    return 0.0, of


def number(name: str, value, alternative: str = "") -> float:
    if type(value) is not float and not isinstance(value, Real):  # which takes a microsecond
        raise TypeError(f"{name} is a {type(value).__name__}: expected a number{alternative}")
    if math.isnan(value):
        raise ValueError(f"{name}={value}: expected a number")
    return float(value)


def _per_sample_and_channel(name: str, value: Tensor, x_adv: Tensor) -> Tensor:
    shape, dims = x_adv.shape, x_adv.dim()
    if value.dim() == 0:
        return value.view(1, 1)
    if value.dim() == 1 and dims >= 1 and value.shape[0] == shape[0]:
        return value.unsqueeze(1)
    sizes = (*(1,) * (dims - value.dim()), *value.shape)
    allowed = [(1, shape[0]), (1, shape[1] if dims > 1 else 1), *((1,),) * (dims - 2)]
    if value.dim() < 2 or len(sizes) != dims or any(n not in some for n, some in zip(sizes, allowed, strict=True)):
        ones = ", 1" * (dims - 2)
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}: expected a number, one per sample ({shape[0] if dims else 1},), "
            f"or (samples or 1, channels or 1{ones}) for x_adv's {tuple(shape)}"
        )
    return value.reshape(sizes[:2])


def box(clip_min, clip_max, dtype: torch.dtype) -> tuple[float, float]:
    """The bounds, rounded inwards."""
    if not clip_min <= clip_max:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected clip_min <= clip_max")
    lowest, highest = -round_down(-float(clip_min), dtype), round_down(float(clip_max), dtype)
    if lowest > highest:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected a number of {dtype} between them")
    return lowest, highest


@functools.lru_cache
def round_down(value: float, dtype: torch.dtype) -> float:
    """The largest number of ``dtype`` that is <= value."""
    rounded = torch.tensor(value, dtype=dtype, device="cpu")
    if rounded.item() > value:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype, device="cpu"))
    return rounded.item()


def spread(number: float, of: Tensor | None, x_adv: Tensor) -> Tensor:
    """In x_adv's dtype, to broadcast against it."""
    if of is None:
        return torch.full((), number, dtype=x_adv.dtype, device=x_adv.device)
    dims = x_adv.dim()
    return of.reshape(*of.shape[: min(dims, 2)], *(1,) * (dims - 2))


def sparse(top_k, x_adv: Tensor) -> tuple[int, Tensor | None]:
    """How many elements of each sample a sparse step moves: one number, or (samples, 1) int64."""
    size = math.prod(x_adv.shape[1:])
    if top_k is None:
        top_k = 0.01  # SLIDE, arXiv 1904.13000
    if isinstance(top_k, Tensor):
        if top_k.is_floating_point() or top_k.is_complex() or top_k.dtype == torch.bool:
            raise TypeError(f"top_k is {top_k.dtype}: expected an integer tensor")
        if top_k.shape != x_adv.shape[:1]:
            raise ValueError(
                f"top_k has shape {tuple(top_k.shape)}: expected a number or one per sample, {tuple(x_adv.shape[:1])}"
            )
        check_device("top_k", top_k, x_adv)
        if top_k.device.type == "cpu" and (top_k < 1).any():
            raise ValueError(f"top_k holds {top_k.min().item()}: expected numbers >= 1")
        return 0, top_k.to(torch.int64).unsqueeze(1)
    if isinstance(top_k, Integral) and not isinstance(top_k, bool):
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: expected >= 1")
        return min(int(top_k), max(1, size)), None
    if not isinstance(top_k, Real) or isinstance(top_k, bool):
        raise TypeError(f"top_k is a {type(top_k).__name__}: expected a number or an integer tensor")
    if not 0 < top_k < 1:
        raise ValueError(f"top_k={top_k}: expected a fraction between 0 and 1, or an integer >= 1")
    return max(1, round(top_k * size)), None


def per_channel(name: str, value, x_adv: Tensor) -> Tensor | None:
    """Of the network's input: float32, one number for each channel, on x_adv's device."""
    if value is None:
        return None
    channels = x_adv.shape[1] if x_adv.dim() > 1 else 1
    expected = f"expected a number, or one for each of {channels} channels"
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} is {value.dtype}: expected a floating tensor")
        sizes = tuple(value.shape)
        if value.numel() not in (1, channels) or (
            sizes not in ((), (value.numel(),)) and _trimmed(sizes, x_adv) is None
        ):
            raise ValueError(f"{name} has shape {sizes}: {expected}")
        check_device(name, value, x_adv)
        if name == "std" and value.device.type == "cpu" and (value == 0).any():
            raise ValueError("std holds 0: expected other numbers")
        value = value.detach().to(torch.float32).reshape(-1)
        return (value if value.numel() == channels else value.expand(channels)).contiguous()
    numbers = (value,) * channels if isinstance(value, Real) else tuple(value)
    if len(numbers) != channels or not all(isinstance(n, Real) for n in numbers):
        raise ValueError(f"{name}={value}: {expected}")
    if name == "std" and 0 in numbers:
        raise ValueError(f"std={value}: expected numbers other than 0")
    if x_adv.is_cuda and torch.cuda.is_current_stream_capturing():
        return _constants(numbers, x_adv.device)  # memory of the graph
    return _kept_constants(numbers, x_adv.device)


def _trimmed(sizes: tuple, x_adv: Tensor) -> int | None:
    """The one size that is not 1 if it is that of channels: (C, 1, 1), (1, C, 1, 1)."""
    dims = x_adv.dim()
    full = (*(1,) * (dims - len(sizes)), *sizes)
    return full[1] if len(full) == dims > 1 and all(n == 1 for d, n in enumerate(full) if d != 1) else None


def _constants(numbers: tuple, device: torch.device) -> Tensor:
    # Filled on the device: a copy from the host would wait for it.
    return torch.cat([torch.full((1,), float(n), dtype=torch.float32, device=device) for n in numbers])


# Never forgotten: a captured graph may read them.
_kept_constants = functools.cache(_constants)
