"""A network's first layer and its step, as csrc/conv_act.h has them: checks, layouts, launches."""

import torch
import triton
from torch import Tensor

from . import conv_act as kernels
from .latent_operators import ActivationOf
from .operators import check_like, compute_type, dense, laid_out_as
from .steps import PreparedStep

MOST_CHANNELS = 4
# As csrc/elementwise.h numbers them.
DTYPES = {0: torch.float32, 2: torch.bfloat16, 3: torch.float16}
# Sides of a program's products: PLACES x INNER by INNER x FILTERS or COLUMNS, at least 16. Larger ones spill registers.
PLACES, INNER, FILTERS, LEAST_COLUMNS, MOST_COLUMNS = 64, 16, 32, 16, 64
# Contraction is for the products: what decides whether a step is feasible is sums and comparisons alone.
LAUNCH = {"num_warps": 8, "enable_fp_fusion": True}


class Layer:
    """A layer over images like x, which is float32."""

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor | None, stride: int, padding: int
    ):  # fmt: skip
        if x.dtype != torch.float32 or x.ndim != 4 or not 1 <= x.shape[1] <= MOST_CHANNELS:
            raise RuntimeError(f"x: expected float32 (B, C, H, W) with 1 to {MOST_CHANNELS} channels")
        channels = x.shape[1]
        if weight.ndim != 4 or weight.shape[1] != channels or weight.dtype != x.dtype or weight.device != x.device:
            raise RuntimeError("weight: expected float32 (filters, channels of x, height, width) on x's device")
        self.filters, _, *self.kernel = weight.shape
        for name, t, size in (("bias", bias, self.filters), ("mean", mean, channels)):
            if t is not None and (t.shape != (size,) or t.dtype != x.dtype or t.device != x.device):
                raise RuntimeError(f"{name}: expected {size} float32 numbers on x's device")
        if stride < 1 or padding < 0:
            raise RuntimeError(f"stride={stride}, padding={padding}: expected stride >= 1 and padding >= 0")
        self.image, self.stride, self.padding = x.shape, stride, padding
        self.size = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], self.kernel, strict=True)]
        if min(weight.shape) < 1 or min(self.size) < 1:
            raise RuntimeError("weight: expected a filter, of at least one element and no larger than the padded x")
        self.weight = weight.contiguous()
        self.bias, self.mean = (None if t is None else t.contiguous() for t in (bias, mean))

    @property
    def shape(self) -> tuple[int, ...]:
        """z's."""
        return self.image[0], self.filters, *self.size

    def _constants(self) -> dict:
        channels, (height, width) = self.image[1], self.kernel
        return {"CHANNELS": channels, "KERNEL_HEIGHT": height, "KERNEL_WIDTH": width, "PLACES": PLACES, **LAUNCH}

    def forward(self, x: Tensor, y: Tensor | None, z: Tensor | None, f: ActivationOf) -> None:
        """y and z: dense and of one layout, or None."""
        like = z if y is None else y
        if like.numel() == 0:
            return
        samples, _, *image = self.image
        plane = self.size[0] * self.size[1]
        grid = triton.cdiv(samples * plane, PLACES), triton.cdiv(self.filters, FILTERS)
        with torch.cuda.device_of(x):
            kernels.forward[grid](
                x, *x.stride(), self.weight, self.bias, self.mean, *f.numbers, y, z, *like.stride(), plane, samples,
                *image, self.filters, self.size[1], self.stride, self.padding, FAST=like.element_size() == 2,
                FILTERS=FILTERS, TAPS=INNER, **f.constants("value"), **self._constants(),
            )  # fmt: skip

    def step(self, grad: Tensor, z: Tensor, step: PreparedStep, f: ActivationOf) -> None:
        """grad and z: dense and of one layout."""
        samples, channels, *image = self.image
        first = self.padding // self.stride
        places = [(n - 1 + self.padding) // self.stride - first + 1 for n in image]
        plane, columns = places[0] * places[1], channels * self.stride**2
        side = min(max(triton.next_power_of_2(columns), LEAST_COLUMNS), MOST_COLUMNS)
        grid = triton.cdiv(samples * plane, PLACES), triton.cdiv(columns, side)
        with torch.cuda.device_of(grad):
            kernels.step_linf[grid](
                grad, z, *grad.stride(), step.target, step.x, *step.target.stride(), self.weight, *f.numbers,
                *step.alpha[:3], *step.eps[:3], *step.box, plane, places[1], samples, *image, self.filters, *self.size,
                self.padding, STRIDE=self.stride, ALPHA=step.alpha[3], EPS=step.eps[3], FILTERS=INNER, COLUMNS=side,
                **f.constants("derivative"), **self._constants(),
            )  # fmt: skip


def conv_act(
    x: Tensor, weight: Tensor, bias: Tensor | None, mean: Tensor | None, stride: int, padding: int, activation: str,
    a: float, b: float, a_of: Tensor | None, b_of: Tensor | None, dtype: int, keep_z: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    layer = Layer(x, weight, bias, mean, stride, padding)
    if dtype not in DTYPES:
        raise RuntimeError(f"dtype={dtype}: expected one of {', '.join(f'{n} ({t})' for n, t in DTYPES.items())}")
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    y = torch.empty(
        layer.shape, dtype=DTYPES[dtype], device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    z = torch.empty_like(y) if keep_z else None
    layer.forward(x, y, z, ActivationOf(activation, a, b, a_of, b_of, y))
    return y, z if keep_z else y.new_empty(0)


def conv_act_backward_pgd_step_(
    grad: Tensor, x_adv: Tensor, x: Tensor, z: Tensor | None, weight: Tensor, bias: Tensor | None, mean: Tensor | None,
    stride: int, padding: int, activation: str, a: float, b: float, a_of: Tensor | None, b_of: Tensor | None,
    eps: float, alpha: float, eps_of: Tensor | None, alpha_of: Tensor | None, clip_min: float, clip_max: float,
    steps: int,
) -> None:  # fmt: skip
    layer = Layer(x, weight, bias, mean, stride, padding)
    if grad.shape != layer.shape or grad.device != x.device or compute_type(grad)[0] != torch.float32:
        raise RuntimeError(f"grad: expected float32, bfloat16 or float16 {tuple(layer.shape)} on x's device")
    if z is not None:
        check_like("z", z, "grad", grad)
        if z.dtype != grad.dtype:
            raise RuntimeError("z differs in dtype from grad: expected the same")
    if steps < 1 or (z is not None and steps != 1):
        raise RuntimeError(f"steps={steps}: expected at least 1, and no more with z")
    f = ActivationOf(activation, a, b, a_of, b_of, grad)
    step = PreparedStep(
        x_adv, None, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, *[None] * 5, as_a_batch=False
    )  # fmt: skip
    if step.empty:
        return
    grad = dense(grad)
    at = torch.empty_like(grad, dtype=torch.float32) if z is None else laid_out_as(grad, z)
    for _ in range(steps):
        if z is None:
            layer.forward(step.target, None, at, f)
        layer.step(grad, at, step, f)
    step.finish()
