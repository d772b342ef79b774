"""Random starts."""

import math
import re
from numbers import Integral, Real

import torch
from torch import Tensor

from .._extension import devices
from . import random
from .perturbation import pgd_step_, project_
from .perturbation.reference import rounded_sum
from .perturbation.sizes import box, round_down

_DEVICES = devices()
# The numbers of csrc/starts.h.
_NOISES = ("none", "uniform", "normal", "laplace")
_RADII = ("bounded", "surface", "uniform", "volume", "free")
_NORMS = ("Linf", "L2", "L1")
_NAMES = ("zero", "uniform", "uniform_ball", "radial", "sphere", "normal")


def random_start(
    x: Tensor,
    *,
    eps: float | Tensor,
    init: str = "uniform",
    seed: int | Tensor,
    sample_ids: Tensor | None = None,
    restart: int | Tensor = 0,
    norm: str = "Linf",
    clip_min: float = 0.0,
    clip_max: float = 1.0,
) -> Tensor:
    """A random point of the ball around each sample, inside the box, in one kernel.

    It depends on (seed, sample id, restart) and the element's place in the sample, (C, H, W), alone: not on the batch,
    the memory format or the device. Noise has 24 bits (Philox4x32-10); normal noise is at most 5.42. Linf starts of
    uniform noise are the same bits everywhere; others within 2e-6 of eps, or of s.

    Attacks differ in their starts, and so in their results. With d elements in a sample, ``init`` is

    - "uniform": each coordinate U(-eps, eps), projected to the ball (Linf: Madry et al., torchattacks; L2: advertorch,
      CleverHans: there the cube's noise is longer than eps where d > 3, so that nearly all starts are on the sphere);
    - "uniform_ball": uniform in the ball, so that the length is eps u^(1/d), u ~ U(0, 1): for an image, nearly eps
      (Foolbox). L2: along normal noise, L1: along Laplace noise, Linf: the same as "uniform";
    - "radial": length eps u, u ~ U(0, 1), in such a direction: half of the starts are within eps / 2 (torchattacks'
      L2, Rice et al.). Linf: the cube's noise over its largest coordinate;
    - "sphere": length eps, in such a direction (L2: robustness, AutoAttack; Linf: AutoAttack);
    - "normal(s)": s N(0, 1), projected to the ball; "normal" is "normal(0.001)" (TRADES);
    - "zero": ``x``.

    Afterwards coordinates are cut to the box, which only shortens. "uniform" and "normal" in L1 end as ``project_``
    does, in kernels of their own.

    Args:
        x: (B, ...) float32 or float64, any strides.
        eps: radius >= 0; a number, a 0-d or a (B,) tensor.
        init: see above.
        seed: a number, of which 64 bits count, or a 0-d int64 tensor, which a captured CUDA graph reads anew.
        sample_ids: (B,) integers that name the samples; None: 0..B-1.
        restart: number of the restart, from 0, of which 32 bits count; or a 0-d int64 tensor.
        norm: "Linf", "L2" or "L1".
        clip_min, clip_max: the box.

    Returns:
        A new tensor of x's shape, dtype and layout, inside ball and box in exact arithmetic if ``x`` is in the box.

    Raises:
        TypeError, ValueError: an argument is not as above. Values of CUDA tensors are not looked at.
    """
    noise, radius, deviation = _recipe(init, norm)
    _check(x, clip_min, clip_max)
    ids = _sample_ids(sample_ids, x)
    seed, seed_of = _integer("seed", seed, x)
    restart, restart_of = _integer("restart", restart, x)
    number, nearest, down = _eps(eps, x)
    if radius == "free":
        low, high = -math.inf, math.inf  # project_ sees to the box
    else:
        low, high = box(clip_min, clip_max, x.dtype)
        if low > high:
            raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected a number of {x.dtype} between them")
    x = x.detach()
    if x.device.type in _DEVICES and type(x) is Tensor and not x.is_neg():
        scale, scale_of = (number, nearest) if deviation is None else (deviation, None)
        x_adv = _kernel(
            x, _NOISES.index(noise), _RADII.index(radius), _NORMS.index(norm), scale,
            number if down is not None else round_down(number, x.dtype), scale_of, down, low, high,
            seed, seed_of, restart, restart_of, ids,
        )  # fmt: skip
    else:
        key = (
            seed if seed_of is None else seed_of,
            torch.arange(x.shape[0], device=x.device) if ids is None else ids,
            restart if restart_of is None else restart_of,
        )
        nearest = torch.tensor(number, dtype=x.dtype, device=x.device) if nearest is None else nearest
        scale = nearest if deviation is None else torch.tensor(deviation, dtype=x.dtype, device=x.device)
        with torch.no_grad():
            x_adv = _reference(x, noise, radius, norm, scale, eps, nearest if down is None else down, key, low, high)
    if radius == "free":
        project_(x_adv, x, eps=eps, norm=norm, clip_min=clip_min, clip_max=clip_max)
    return x_adv


def _kernel(*arguments) -> Tensor:
    return torch.ops.sat_kernels.random_start.default(*arguments)


def _recipe(init: str, norm: str) -> tuple[str, str, float | None]:
    """Noise, radius and, for normal noise, the deviation."""
    if norm not in _NORMS:
        raise ValueError(f"norm={norm!r}: expected 'Linf', 'L2' or 'L1'")
    found = re.fullmatch(r"(\w+)(?:\((.*)\))?", init) if isinstance(init, str) else None
    name, deviation = found.groups() if found else (None, None)
    if name not in _NAMES or (deviation is not None and name != "normal"):
        raise ValueError(f"init={init!r}: expected one of {', '.join(map(repr, _NAMES))}, or 'normal(s)'")
    bounded = "free" if norm == "L1" else "bounded"
    if name == "zero":
        return "none", "bounded", 0.0
    if name == "normal":
        try:
            deviation = 0.001 if deviation is None else float(deviation)
        except ValueError:
            deviation = math.nan
        if not 0 <= deviation < math.inf:
            raise ValueError(f"init={init!r}: expected a number >= 0 in the brackets")
        return "normal", bounded, deviation
    if name == "uniform" or (norm == "Linf" and name == "uniform_ball"):
        return "uniform", bounded, None
    direction = {"Linf": "uniform", "L2": "normal", "L1": "laplace"}[norm]
    return direction, {"uniform_ball": "volume", "radial": "uniform", "sphere": "surface"}[name], None


def _check(x: Tensor, clip_min: float, clip_max: float) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}: expected a tensor")
    if x.layout is not torch.strided or x.is_nested:
        raise TypeError(f"x is a {'nested' if x.is_nested else x.layout} tensor: expected a dense one")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x is {x.dtype}: expected torch.float32 or torch.float64")
    if x.dim() < 1:
        raise ValueError("x has no dimensions: expected (B, ...)")
    if not clip_min <= clip_max:
        raise ValueError(f"clip_min={clip_min}, clip_max={clip_max}: expected clip_min <= clip_max")


def _sample_ids(ids: Tensor | None, x: Tensor) -> Tensor | None:
    if ids is None:
        return None
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex() or ids.shape != x.shape[:1]:
        found = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise ValueError(f"sample_ids is {found}: expected {x.shape[0]} integers")
    return ids.to(x.device, torch.int64).contiguous()


def _integer(name: str, value, x: Tensor) -> tuple[int, Tensor | None]:
    """The lower 64 bits of a number, or the tensor that holds one."""
    if isinstance(value, Tensor):
        if value.dim() != 0 or value.dtype != torch.int64 or value.device != x.device:
            raise ValueError(
                f"{name} is {value.dtype} {tuple(value.shape)} on {value.device}: expected a number or a 0-d int64 "
                f"tensor on x's device, {x.device}"
            )
        return 0, value
    if not isinstance(value, Integral):
        raise TypeError(f"{name} is a {type(value).__name__}: expected an integer or a 0-d int64 tensor")
    return (int(value) + 2**63) % 2**64 - 2**63, None


def _eps(value, x: Tensor) -> tuple[float, Tensor | None, Tensor | None]:
    """A number, or tensors in x's dtype: rounded to nearest, as noise is scaled, and down, as the ball is."""
    if not isinstance(value, Tensor):
        if not isinstance(value, Real):
            raise TypeError(f"eps is a {type(value).__name__}: expected a number or a tensor")
        if not value >= 0:
            raise ValueError(f"eps={value}: expected a number >= 0")
        return float(value), None, None
    if value.shape not in ((), x.shape[:1]):
        raise ValueError(f"eps has shape {tuple(value.shape)}: expected a number or one per sample, ({x.shape[0]},)")
    if not value.is_floating_point():
        raise TypeError(f"eps is {value.dtype}: expected a floating tensor")
    if value.device != x.device:
        raise ValueError(f"eps is on {value.device}: expected x's device, {x.device}")
    if type(value) is Tensor and value.device.type == "cpu" and not (value >= 0).all():
        raise ValueError(f"eps holds {value.min().item()}: expected numbers >= 0")
    nearest = down = value.detach().to(x.dtype).contiguous()
    if nearest.dtype != value.dtype:
        too_large = nearest.double() > value.double()
        down = torch.where(too_large, torch.nextafter(nearest, torch.zeros_like(nearest)), nearest)
    return 0.0, nearest, down


def _reference(x, noise, radius, norm, scale, eps, eps_down, key, low, high) -> Tensor:
    """The start in plain PyTorch."""

    def per_sample(value):
        return value.reshape(-1, *(1,) * (x.dim() - 1))

    uniform = random.uniform(x, *key)
    values = {
        "none": lambda: torch.zeros_like(x),
        "uniform": lambda: uniform,
        "normal": lambda: random.normal(uniform).to(x.dtype),
        "laplace": lambda: random.laplace(uniform).to(x.dtype),
    }[noise]()
    if x.numel() == 0:
        return torch.empty_like(x)
    if radius in ("surface", "uniform", "volume"):
        share = {
            "surface": lambda: torch.ones(x.shape[0], dtype=torch.float64, device=x.device),
            "uniform": lambda: random.fraction(x, *key),
            "volume": lambda: random.fraction(x, *key) ** (1 / x[0].numel()),
        }[radius]()
    flat = values.double().abs().reshape(x.shape[0], -1)
    if norm == "Linf":
        if radius != "bounded":
            scale = (eps_down.double() * share / flat.amax(1)).to(x.dtype)
        x_adv = x + per_sample(scale) * values
        eps = eps.expand(x.shape[0]) if isinstance(eps, Tensor) else eps
        return pgd_step_(x_adv, values, x, eps=eps, alpha=0.0, clip_min=low, clip_max=high)
    factor = scale.double().expand(x.shape[0])
    if radius != "free":
        length = flat.sum(1) if norm == "L1" else flat.square().sum(1).sqrt()
        most = eps_down.double() * (1 - (2.0**-21 if x.dtype == torch.float32 else 2.0**-22))
        if radius == "bounded":
            factor = torch.where(factor * length > most, most / length, factor)
        else:
            factor = most * share / length
    least = torch.nextafter(x.new_zeros(()), x.new_ones(()))
    size = ((values.double().abs() * per_sample(factor)).to(x.dtype) - least).clamp(min=0)
    # Rounded towards x: the stored difference is no larger.
    moved = torch.where(values < 0, rounded_sum(x, -size, math.inf), rounded_sum(x, size, -math.inf))
    return torch.empty_like(x).copy_(moved.clamp(low, high))
