"""Projected gradient descent."""

import warnings
from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor

from ..ops import pgd_step_
from . import starts
from .isolation import MODES, isolated
from .losses import resolve

_GOLDEN = 0x9E3779B97F4A7C15


class PGD:
    """Projected gradient descent on the input (Madry et al., arXiv 1706.06083).

    The model is left as it was, whatever happens: training flags, requires_grad, ``.grad``, buffers, global
    random state. No weight gradients are computed. The caller's grad mode, inference mode and autocast have no
    effect on the attack.

    Args:
        model: callable from (B, ...) input to (B, C) logits; an ``nn.Module`` is frozen, and put into ``mode``,
            for the time of the attack. For normalised input see :class:`Normalized`.
        eps: radius >= 0, in the units of the input; a number or a (B,) tensor.
        alpha: step size >= 0; a number or a (B,) tensor.
        steps: number of steps >= 0.
        random_start: whether to start at a random point of the ball, or at the clean input.
        norm: "Linf".
        targeted: whether ``y`` are classes to reach, not to leave.
        clip_min, clip_max: the box of valid inputs.
        restarts: starts >= 1. With one, the last iterate is returned; with more, per sample the first that
            the model misclassifies, else the one of highest loss.
        loss: "ce", or a callable (logits, y) -> (B,) losses.
        init: "uniform": the start's noise is uniform in the ball's cube, then clipped to the box.
        mode: batch norm and dropout during the attack: "eval"; "train", which also updates running
            statistics; "batch_stats", batch statistics with the running ones untouched, dropout off; "as_is".
        precision: "fp32". "bf16" is accepted and, in this version, runs in fp32 with a warning.
        lower: whether the model may be rewritten into faster kernels. In this version it always runs as is.
        feasible: whether results are inside ball and box in exact arithmetic; False rounds as torchattacks
            does, and averages the loss over the batch as it does.
        generator: where the seed comes from (its ``initial_seed()``; nothing is drawn). None: torch's
            default generator.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        alpha: float | Tensor = 2 / 255,
        steps: int = 10,
        random_start: bool = True,
        *,
        norm: str = "Linf",
        targeted: bool = False,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        restarts: int = 1,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "ce",
        init: str = "uniform",
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool = True,
        feasible: bool = True,
        generator: torch.Generator | None = None,
    ):
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
            ("norm", norm, ("Linf",)),
            ("init", init, ("uniform",)),
            ("mode", mode, MODES),
            ("precision", precision, ("fp32", "bf16")),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r}: expected {' or '.join(map(repr, known))}")
        if precision == "bf16":
            warnings.warn("precision='bf16' is not there yet: the attack runs in fp32", stacklevel=2)
        self.model = model
        # Floats, because a NumPy number times a tensor is an array.
        self.eps, self.alpha = (v if isinstance(v, Tensor) else float(v) for v in (eps, alpha))
        self.steps, self.random_start, self.norm, self.targeted = steps, random_start, norm, targeted
        self.clip_min, self.clip_max, self.restarts = float(clip_min), float(clip_max), restarts
        self.loss, self.init, self.mode, self.precision = resolve(loss), init, mode, precision
        self.lower, self.feasible, self.generator = lower, feasible, generator
        self._calls = 0

    def __call__(self, x: Tensor, y: Tensor | None = None, *, sample_ids: Tensor | None = None) -> Tensor:
        """The adversarial examples of ``x``.

        Args:
            x: (B, ...) float32 or float64, inside the box, in any memory format.
            y: (B,) integer labels; None takes the model's own prediction (so that labels do not leak).
            sample_ids: (B,) integers that name the samples, so that the random starts do not depend on how
                samples are batched, sharded or repeated. Without them they are 0..B-1, and every call of
                this object has starts of its own.

        Returns:
            Tensor of the shape, dtype and memory format of ``x``, detached.

        Raises:
            TypeError, ValueError: an argument is not as above.
        """
        self._check(x, y, sample_ids)
        if x.shape[0] == 0:
            return torch.empty_like(x)
        seed = torch.initial_seed() if self.generator is None else self.generator.initial_seed()
        default_ids = sample_ids is None
        if default_ids:
            sample_ids = torch.arange(x.shape[0], device=x.device)
            seed += _GOLDEN * self._calls
        with (
            # Tensors that are made in the caller's inference mode could not carry gradients.
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(x.device.type, enabled=False),
            isolated(self.model, self.mode, x.device),
        ):
            # A copy, too, because a model may change its input in place.
            y = self._logits(x.clone()).argmax(1) if y is None else y.to(x.device, torch.int64, copy=True)
            x = x.clone() if x.is_inference() else x.detach()
            x_adv = self._best_of_restarts(x, y, seed, sample_ids)
        self._calls += default_ids
        return x_adv

    def _best_of_restarts(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor) -> Tensor:
        best = self._run(x, y, seed, sample_ids, 0)
        if self.restarts == 1:
            return best
        fooled, losses = self._judge(best, y)
        for restart in range(1, self.restarts):
            x_adv = self._run(x, y, seed, sample_ids, restart)
            new_fooled, new_losses = self._judge(x_adv, y)
            better = ~fooled & (new_fooled | (new_losses > losses))
            best = torch.where(_per_sample(better, x), x_adv, best)
            losses = torch.where(better, new_losses, losses)
            fooled |= new_fooled
        return best

    def _judge(self, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Per sample whether the attack has succeeded, and the loss that it maximises."""
        logits = self._logits(x_adv.clone())  # a model may change its input in place
        predicted = logits.argmax(1)
        return (predicted == y if self.targeted else predicted != y), self._losses(logits, y)

    def _run(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        x_adv = self._start(x, starts.uniform(x, seed, sample_ids, restart)) if self.random_start else x.clone()
        for _ in range(self.steps):
            x_adv = self._step(x_adv, self._gradient(x_adv, y), x)
        return x_adv

    def _gradient(self, x_adv: Tensor, y: Tensor) -> Tensor:
        x_adv = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            losses = self._losses(self._logits(x_adv), y)
            # Summed, so that a sample's gradient does not shrink (and underflow) as the batch grows.
            total = losses.sum() if self.feasible else losses.mean()
            grad = torch.autograd.grad(total, x_adv, allow_unused=True)[0] if total.requires_grad else None
        if grad is None:
            raise ValueError("model has no gradient at its input: expected a differentiable one, not in no_grad()")
        return grad

    def _logits(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        expected = f"expected floating ({x.shape[0]}, C) logits"
        if not isinstance(logits, Tensor):
            raise TypeError(f"model returned a {type(logits).__name__}: {expected}")
        if not logits.is_floating_point() or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
            raise ValueError(f"model returned {logits.dtype} {tuple(logits.shape)}: {expected}")
        return logits if logits.dtype == torch.float64 else logits.float()

    def _losses(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = self.loss(logits, y)
        if not isinstance(losses, Tensor) or losses.shape != y.shape:
            found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"loss returned {found}: expected one loss per sample, a tensor {tuple(y.shape)}")
        return -losses if self.targeted else losses

    def _start(self, x: Tensor, noise: Tensor) -> Tensor:
        x_adv = x + _per_sample(self.eps, x) * noise
        if not self.feasible:
            return x_adv.clamp(self.clip_min, self.clip_max)
        # A step of size 0 projects, whatever its direction.
        return self._fused_step(x_adv, noise, x, alpha=0.0)

    def _step(self, x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        if self.feasible:
            return self._fused_step(x_adv, grad, x, self.alpha)
        # torchattacks' order of roundings, bit for bit.
        eps = _per_sample(self.eps, x)
        x_adv = x_adv + _per_sample(self.alpha, x) * grad.sign()
        delta = (x_adv - x).clamp(-eps, eps)
        return (x + delta).clamp(self.clip_min, self.clip_max)

    def _fused_step(self, x_adv: Tensor, grad: Tensor, x: Tensor, alpha: float | Tensor) -> Tensor:
        box = {"clip_min": self.clip_min, "clip_max": self.clip_max}
        return pgd_step_(x_adv, grad, x, eps=self.eps, alpha=alpha, norm=self.norm, **box)

    def _check(self, x, y, sample_ids) -> None:
        if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
            found = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"x is {found}: expected a float32 or float64 tensor in [{self.clip_min}, {self.clip_max}]")
        if x.dim() < 1:
            raise ValueError("x has no dimensions: expected (B, ...)")
        for name, size in (("eps", self.eps), ("alpha", self.alpha)):
            if isinstance(size, Tensor) and (size.shape != x.shape[:1] or size.device != x.device):
                raise ValueError(
                    f"{name} is {tuple(size.shape)} on {size.device}: expected a number, or one per sample, "
                    f"{tuple(x.shape[:1])} on {x.device}"
                )
        if y is None and self.targeted:
            raise ValueError("y=None with targeted=True: expected the (B,) classes to reach")
        for name, labels in (("y", y), ("sample_ids", sample_ids)):
            if labels is None:
                continue
            if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != x.shape[:1]:
                found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
                raise ValueError(f"{name} is {found}: expected {x.shape[0]} integers")
        if x.numel() == 0:
            return
        low, high = (v.item() for v in x.aminmax())
        if not self.clip_min <= low <= high <= self.clip_max:
            warnings.warn(
                f"x has values in [{low}, {high}], outside the box [{self.clip_min}, {self.clip_max}]: results are "
                "clipped to the box. If the model takes normalised input, attack "
                "attacks.Normalized(model, mean, std) with pixels instead.",
                stacklevel=3,
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(eps={self.eps}, alpha={self.alpha}, steps={self.steps}, norm={self.norm!r}, "
            f"random_start={self.random_start}, restarts={self.restarts}, mode={self.mode!r}, "
            f"targeted={self.targeted}, precision='fp32', lowered=False)"
        )


def _check_size(name: str, value) -> None:
    if not isinstance(value, Tensor):
        if not isinstance(value, Real) or not value >= 0:
            raise ValueError(f"{name}={value!r}: expected a number >= 0, or a tensor of one per sample")
    elif not value.is_floating_point() or not (value >= 0).all():
        raise ValueError(f"{name}={value}: expected a floating tensor of numbers >= 0, one per sample")


def _per_sample(value, x: Tensor):
    """A (B,) tensor in the shape that broadcasts against ``x``, floating ones in its dtype; a number as it is."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(x.dtype) if value.is_floating_point() else value
    return value.reshape(-1, *(1,) * (x.dim() - 1))
