"""The steps' operators, as csrc/step_operators.h has them: checks, layouts, launches."""

import torch
import triton
from torch import Tensor

from . import momentum, operators, perturbation
from .operators import WARPS, bits, check_like, compute_type, dense, laid_out_as

LAUNCH = {"num_warps": WARPS, "enable_fp_fusion": False}


class PreparedStep:
    """A step over memory as the kernels take it."""

    def __init__(
        self, x_adv, grad, x, eps, alpha, eps_of, alpha_of, clip_min, clip_max, mask, active, out, mean, std, *,
        as_a_batch=True, grads_of_x=True,
    ):  # fmt: skip
        if x_adv.dtype not in (torch.float32, torch.float64):
            raise RuntimeError("x_adv: expected float32 or float64")
        check_like("x", x, "x_adv", x_adv)
        if x.dtype != x_adv.dtype:
            raise RuntimeError("x differs in dtype from x_adv: expected the same")
        self.x_adv, self.dtype, self.copies = x_adv, x_adv.dtype, []
        self.batch = x_adv.shape[0] if x_adv.ndim else 1
        self.all_channels = x_adv.shape[1] if x_adv.ndim > 1 else 1
        self.target = target = self._in_batch(dense(x_adv), out) if as_a_batch else dense(x_adv)
        self.empty = x_adv.numel() == 0
        self.samples, self.sample_size = (
            (self.batch, x_adv.numel() // max(1, self.batch)) if as_a_batch else (1, x_adv.numel())
        )
        self.channels = self.all_channels if as_a_batch else 1
        self.inner = target.stride(1) if self.channels > 1 else self.sample_size
        self.box = bits(clip_min, self.dtype), bits(clip_max, self.dtype)
        self.eps, self.alpha = self.size("eps_of", eps, eps_of), self.size("alpha_of", alpha, alpha_of)
        for name, tensor, dtype in (("mask", mask, torch.bool), ("grad", grad, None)):
            if tensor is not None:
                check_like(name, tensor, "x_adv", x_adv)
                if dtype not in (None, tensor.dtype):
                    raise RuntimeError(f"{name}: expected bool")
        if active is not None:
            self._check_vector("active", active, self.batch, torch.bool)
        self.active = active
        if grad is not None:
            compute_type(grad)
            if grads_of_x and (grad.dtype == torch.float64) != (self.dtype == torch.float64):
                grad = grad.to(self.dtype)
        self.x = laid_out_as(target, x)
        self.grad, self.mask = (None if t is None else laid_out_as(target, t) for t in (grad, mask))
        self.out, self.mean, self.deviation = None, mean, std
        self.out_strides, self.in_order = (0, 0, 0), True
        if out is not None:
            self._write_out(out)

    def size(self, name: str, number: float, of: Tensor | None, dtype: torch.dtype | None = None) -> tuple:
        """(bits or pointer, stride of samples, of channels, kind), of numbers of x_adv's dtype, or ``dtype``."""
        if of is None:
            return bits(number, self.dtype), 0, 0, 0
        rows, columns = of.shape if of.ndim == 2 else (0, 0)
        if (
            rows not in (1, self.batch) or columns not in (1, self.all_channels)
            or of.dtype != (dtype or self.dtype) or of.device != self.x_adv.device
        ):  # fmt: skip
            raise RuntimeError(
                f"{name}: expected (samples or 1, channels or 1) numbers of the right dtype on the tensors' device"
            )
        strides = of.stride(0) if rows > 1 else 0, of.stride(1) if columns > 1 else 0
        return of, *strides, 2 if strides[1] else 1

    def changed(self, name: str, tensor: Tensor) -> Tensor:
        """The memory of a tensor like x_adv, which the kernel changes, too."""
        check_like(name, tensor, "x_adv", self.x_adv)
        if tensor.dtype != self.dtype:
            raise RuntimeError(f"{name} differs in dtype from x_adv: expected the same")
        return self._written_through(laid_out_as(self.target, tensor), tensor)

    def finish(self) -> None:
        if self.target is not self.x_adv:
            self.x_adv.copy_(self.target)
        for wanted, copy in self.copies:
            wanted.copy_(copy)

    def _in_batch(self, t: Tensor, out: Tensor | None) -> Tensor:
        """Samples one after the other; for ``out``, channels before all other dimensions of a sample, or after."""
        if t.numel() == 0:
            return t
        size = t.numel() // self.batch
        inner = t.stride(1) if self.all_channels > 1 else 1
        outside = out is None or inner in (1, size // self.all_channels)
        return t if (self.batch == 1 or t.stride(0) == size) and outside else t.contiguous()

    def _check_vector(self, name: str, t: Tensor, size: int, dtype: torch.dtype) -> None:
        if t.shape != (size,) or not t.is_contiguous() or t.dtype != dtype or t.device != self.x_adv.device:
            raise RuntimeError(f"{name}: expected {size} contiguous numbers of the right dtype on x_adv's device")

    def _written_through(self, copy: Tensor, wanted: Tensor) -> Tensor:
        if copy is not wanted:
            self.copies.append((wanted, copy))
        return copy

    def _write_out(self, out: Tensor) -> None:
        check_like("out", out, "x_adv", self.x_adv)
        if out.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise RuntimeError("out: expected float32, bfloat16 or float16")
        for name, t in (("mean", self.mean), ("std", self.deviation)):
            if t is not None:
                self._check_vector(name, t, self.all_channels, torch.float32)
        if self.empty:
            return
        strides = self._strides(out)
        # A copy has what samples keep that are not active.
        self.out = self._written_through(out if strides else laid_out_as(self.target, out), out)
        self.out_strides = per_sample, per_channel, per_place = strides or self._strides(self.out)
        places = self.sample_size // max(1, self.channels)
        self.in_order = (
            (self.channels == 1 or per_channel == self.inner)
            and (places == 1 or per_place == (self.channels if self.inner == 1 else 1))
            and self.inner in (1, places)
            and (self.samples == 1 or per_sample == self.sample_size)
        )

    def _strides(self, out: Tensor) -> tuple | None:
        """Of samples, channels and places, if one stride steps through these in the target's order."""
        dims = [(self.target.stride(d), out.shape[d], out.stride(d)) for d in range(2, out.ndim) if out.shape[d] != 1]
        expected = first = min(dims)[2] if dims else 0
        for _, size, step in sorted(dims):
            if step != expected:
                return None
            expected *= size
        return out.stride(0) if self.batch > 1 else 0, out.stride(1) if self.all_channels > 1 else 0, first


def _linf(step: PreparedStep, x_prev: Tensor | None = None, first: bool = False) -> None:
    tiles = triton.cdiv(step.sample_size, operators.TILE)
    with torch.cuda.device_of(step.target):
        perturbation.step_linf[(tiles * step.samples,)](
            step.target, step.grad, step.x, x_prev, step.mask, step.active, *step.alpha[:3], *step.eps[:3], *step.box,
            step.out, step.mean, step.deviation, *step.out_strides, tiles, step.sample_size, step.channels, step.inner,
            ALPHA=step.alpha[3], EPS=step.eps[3], FIRST=first, IN_ORDER=step.in_order, SIZE=operators.TILE,
            TAIL=step.sample_size % operators.TILE != 0, **LAUNCH,
        )  # fmt: skip


def pgd_step_linf_(x_adv, grad, x, eps, alpha, eps_of, alpha_of, *rest) -> None:
    _, _, _, active, out, *_ = rest
    as_a_batch = any(t is not None for t in (eps_of, alpha_of, active, out))
    step = PreparedStep(x_adv, grad, x, eps, alpha, eps_of, alpha_of, *rest, as_a_batch=as_a_batch, grads_of_x=False)
    if not step.empty:
        _linf(step)
        step.finish()


def apgd_step_linf_(x_adv, x_prev, grad, x, eps, eps_of, step_size, first, clip_min, clip_max, *options) -> None:
    step = PreparedStep(
        x_adv, grad, x, eps, 0.0, eps_of, step_size, clip_min, clip_max, None, *options, grads_of_x=False
    )
    before = step.changed("x_prev", x_prev)
    if not step.empty:
        _linf(step, before, first)
        step.finish()


def momentum_step_linf_(x_adv, m, grad, x, eps, alpha, decay, *rest) -> None:
    step = PreparedStep(x_adv, grad, x, eps, alpha, *rest)
    changed = step.changed("momentum", m)
    if step.empty:
        return
    with torch.cuda.device_of(x_adv):
        momentum.momentum_step[(step.samples,)](
            step.target, step.grad, step.x, changed, step.mask, step.active, *step.alpha[:3], *step.eps[:3], *step.box,
            bits(decay, step.dtype), step.out, step.mean, step.deviation, *step.out_strides, step.sample_size,
            step.channels, step.inner, ALPHA=step.alpha[3], EPS=step.eps[3], IN_ORDER=step.in_order,
            SIZE=operators.TILE, **LAUNCH,
        )  # fmt: skip
    step.finish()
