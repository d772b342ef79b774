"""Projected gradient descent."""

import copy
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ..ops import pgd_step_, random_start
from . import published
from .arguments import check_call, check_lowering, check_precision, check_settings, dtypes_noted
from .bests import Bests, compacted
from .engine import Replica, unwrapped
from .foreign_names import NamesArguments
from .isolation import isolated, mixes_samples
from .losses import KernelLoss, resolve

_GOLDEN = 0x9E3779B97F4A7C15


class PGD(NamesArguments):
    """Projected gradient descent on the input (Madry et al., arXiv 1706.06083).

    The model is left as it was, whatever happens: training flags, requires_grad, ``.grad``, buffers, global
    random state. No weight gradients are computed. The caller's grad mode, inference mode and autocast have no
    effect on the attack.

    Args:
        model: callable from (B, ...) input to (B, C) logits; an ``nn.Module`` is frozen, and put into ``mode``,
            for the time of the attack. For normalised input see :class:`Normalized`.
        eps: radius >= 0, in the units of the input and in ``norm`` (the default is meant for Linf); a number or a
            (B,) tensor.
        alpha: step size >= 0, likewise.
        steps: number of steps >= 0.
        random_start: whether to start at a random point of the ball, or at the clean input.
        norm: "Linf"; "L2", with steps along the gradient; "L1", with steps along the signs of the 1 % of largest
            elements.
        targeted: whether ``y`` are classes to reach, not to leave.
        clip_min, clip_max: the box of valid inputs.
        restarts: starts >= 1. With one, the last iterate is returned; with more, per sample the first that
            the model misclassifies, else the one of highest loss.
        loss: "ce", "odds", "cw" or "dlr", see :func:`sat_kernels.ops.attack_loss`; or a callable (logits, y) ->
            (B,) losses.
        init: how random starts are distributed: "uniform" in the ball's cube, then projected, "uniform_ball",
            "radial", "sphere", "normal(s)" or "zero", see :func:`sat_kernels.ops.random_start`.
        mode: batch norm and dropout during the attack: "eval"; "train", which also updates running
            statistics; "batch_stats", batch statistics with the running ones untouched, dropout off; "as_is".
        precision: of the passes whose gradients are followed: "fp32", which is the model's own, or "bf16", with
            ``x_adv`` and the logits in float32. Predictions and success are always by the model itself.
        lower: whether gradients come from a replica of the model that does only the work that they need (weights are
            read at every call); or which of its parts to use, see :data:`sat_kernels.attacks.engine.PARTS`. What
            cannot be lowered runs as it is: :meth:`explain` tells.
        compile: whether the replica is compiled by :func:`torch.compile`, for each batch size.
        feasible: whether results are inside ball and box in exact arithmetic; False rounds steps as torchattacks
            does (Linf, L2), and averages the loss over the batch as it does.
        early_stop: whether a sample stays at the first point, its start included, that the model misclassifies, and
            leaves the batch, which shrinks by quarters. The same samples succeed, but with lower losses. Needs samples
            that do not depend on each other: no batch norm in training mode.
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
        lower: bool | Collection[str] = True,
        compile: bool = False,
        feasible: bool = True,
        early_stop: bool = False,
        generator: torch.Generator | None = None,
    ):
        flags = {"random_start": random_start, "targeted": targeted, "compile": compile, "feasible": feasible}
        flags["early_stop"] = early_stop
        check_settings(
            model, eps, alpha, steps, norm, clip_min, clip_max, restarts, init, mode, precision, generator, flags
        )
        check_lowering(lower)
        self.model = model
        # Floats, because a NumPy number times a tensor is an array.
        self.eps, self.alpha = (v if isinstance(v, Tensor) else float(v) for v in (eps, alpha))
        self.steps, self.random_start, self.norm, self.targeted = int(steps), random_start, norm, targeted
        self.clip_min, self.clip_max, self.restarts = float(clip_min), float(clip_max), int(restarts)
        self._loss, self.init = resolve(loss, exact=not feasible), init
        self.mode, self.precision = mode, precision
        self.lower, self.feasible, self.early_stop, self.generator = lower, feasible, early_stop, generator
        self.compile = compile
        self._replica = Replica(model, lower, precision, compile)
        self._calls = 0

    def __call__(self, x: Tensor, y: Tensor | None = None, *, sample_ids: Tensor | None = None) -> Tensor:
        """The adversarial examples of ``x``.

        Args:
            x: (B, ...) float32 or float64, inside the box, in any memory format. On a CPU, values outside give a
                warning; on a GPU, looking would wait for it.
            y: (B,) integer labels; None takes the model's own prediction (so that labels do not leak).
            sample_ids: (B,) integers that name the samples, so that the random starts do not depend on how
                samples are batched, sharded or repeated. Without them they are 0..B-1, and every call of
                this object has starts of its own.

        Returns:
            Tensor of the shape, dtype and memory format of ``x``, detached.

        Raises:
            TypeError, ValueError: an argument is not as above.
        """
        sizes = {"eps": self.eps, "alpha": self.alpha}
        check_call(x, y, sample_ids, sizes, self.targeted, self.clip_min, self.clip_max)
        check_precision(self.precision, x.device)
        if x.shape[0] == 0:
            return torch.empty_like(x)
        seed = torch.initial_seed() if self.generator is None else self.generator.initial_seed()
        default_ids = sample_ids is None
        if default_ids:
            sample_ids = torch.arange(x.shape[0], device=x.device)
            seed += _GOLDEN * self._calls
        self._replica.expire()
        with (
            # Tensors that are made in the caller's inference mode could not carry gradients.
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(x.device.type, enabled=False),
            isolated(self.model, self.mode, x.device),
            dtypes_noted(self.model, x),
        ):
            # A copy, too, because a model may change its input in place.
            y = self._logits(x.clone()).argmax(1) if y is None else y.to(x.device, torch.int64, copy=True)
            x = x.clone() if x.is_inference() else x.detach()
            x_adv = self._best_of_restarts(x, y, seed, sample_ids)
        self._calls += default_ids
        return x_adv

    def explain(self) -> str:
        """How gradients are computed, as of the last call: what was lowered, what runs as it is and why, precision."""
        mode = {
            "eval": "batch norm: running statistics; dropout: off",
            "train": "batch norm: batch statistics, running ones are updated; dropout: on",
            "batch_stats": "batch norm: batch statistics, running ones are left alone; dropout: off",
            "as_is": "batch norm, dropout: in the modes that the model's modules are in",
        }
        return f"{self!r}\n{self._replica.explain()}\n{mode[self.mode]} (mode={self.mode!r})"

    def _best_of_restarts(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor) -> Tensor:
        x_adv = self._run(x, y, seed, sample_ids, 0)
        if self.restarts == 1:
            return x_adv
        bests = Bests(x_adv, *self._judge(x_adv, y))
        for restart in range(1, self.restarts):
            self._run_again(bests, x, y, seed, sample_ids, restart)
        return bests.points

    def _run_again(
        self,
        bests: Bests,
        x: Tensor,
        y: Tensor,
        seed: int,
        sample_ids: Tensor,
        restart: int,
        loss: KernelLoss | None = None,
    ):
        """A run that maximises ``loss`` if given; where samples are independent, only for those without success."""
        judge, index = self, bests.left() if self._is_splittable() else None
        if index is not None and index.numel() < x.shape[0]:
            if index.numel() == 0:
                return
            judge, x, y, sample_ids = self._of(index), x[index], y[index], sample_ids[index]
            loss = loss if loss is None else loss[index]
        else:
            index = None
        attack = copy.copy(judge)
        attack._loss = judge._loss if loss is None else loss
        x_adv = attack._run(x, y, seed, sample_ids, restart)
        bests.offer(x_adv, *judge._judge(x_adv, y), index)

    def _is_splittable(self) -> bool:
        """Whether samples are known to be independent of each other: of a plain callable nothing is known."""
        if not self.feasible:  # the loss is a mean over the batch
            return False
        return isinstance(self.model, torch.nn.Module) and not mixes_samples(self.model, self.mode)

    def _of(self, index: Tensor) -> "PGD":
        """This attack for some of the samples."""
        attack = copy.copy(self)
        attack.eps, attack.alpha = (v[index] if isinstance(v, Tensor) else v for v in (self.eps, self.alpha))
        if isinstance(self._loss, KernelLoss):
            attack._loss = self._loss[index]
        return attack

    def _judge(self, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Per sample the loss that the attack maximises, and whether it has succeeded."""
        logits = self._logits(x_adv.clone())  # a model may change its input in place
        predicted = logits.argmax(1)
        return self._losses(logits, y), (predicted == y if self.targeted else predicted != y)

    def _run(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        x_adv = self._start(x, seed, sample_ids, restart)
        if self.early_stop:
            return self._run_until_fooled(x_adv, x, y)
        for _ in range(self.steps):
            x_adv = self._step(x_adv, self._gradient(x_adv, y), x)
        return x_adv

    def _run_until_fooled(self, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
        self._check_early_stop()
        result, batch, index = x_adv.clone(), x.shape[0], torch.arange(x.shape[0], device=x.device)
        attack, stopped = self, torch.zeros_like(y, dtype=torch.bool)
        for _ in range(self.steps):
            grad, _, fooled = attack._evaluate(x_adv, y)
            new = compacted(fooled & ~stopped, batch)
            if new.numel():  # the user's own model decides
                stopped[new] |= attack._of(new)._judge(x_adv[new], y[new])[1]
            kept = compacted(~stopped, batch)
            if kept.numel() < stopped.numel():
                result.index_copy_(0, index, x_adv)
                if kept.numel() == 0:
                    return result
                attack, index = attack._of(kept), index[kept]
                x_adv, x, y, grad, stopped = (tensor[kept] for tensor in (x_adv, x, y, grad, stopped))
            moved = attack._step(x_adv.clone(), grad, x)
            x_adv = torch.where(stopped.reshape(-1, *(1,) * (x.dim() - 1)), x_adv, moved)
        return result.index_copy_(0, index, x_adv)

    def _check_early_stop(self) -> None:
        if mixes_samples(self.model, self.mode):
            raise ValueError(
                f"early_stop=True with mode={self.mode!r}: expected samples that do not depend on each other, not "
                "batch norm in training mode"
            )

    def _start(self, x: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        if not self.random_start:
            return x.clone()
        key = {"seed": seed, "sample_ids": sample_ids, "restart": restart}
        return random_start(x, eps=self.eps, init=self.init, norm=self.norm, **self._box(), **key)

    def _step(self, x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        if not self.feasible:
            return published.STEPS[self.norm](x_adv, grad, x, self.eps, self.alpha, **self._box())
        return pgd_step_(x_adv, grad, x, eps=self.eps, alpha=self.alpha, norm=self.norm, **self._box())

    def _box(self) -> dict[str, float]:
        return {"clip_min": self.clip_min, "clip_max": self.clip_max}

    def _gradient(self, x_adv: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf, logits = self._pass(x_adv)
            return _gradient_at(leaf, *self._objective(logits, y))

    def _pass(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Where the gradient is taken, and the logits."""
        leaf = x_adv.detach().requires_grad_()
        return leaf, self._logits(leaf, self._replica)

    def _evaluate(self, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient, and what :meth:`_judge` returns, from one forward pass."""
        with torch.enable_grad():
            leaf, logits = self._pass(x_adv)
            if isinstance(self._loss, KernelLoss) and self.feasible:
                losses, correct, _, grad = self._loss.evaluate(logits, y)[:4]
                start, cotangent, losses = logits, *((-grad, -losses) if self.targeted else (grad, losses))
            else:
                losses, correct = self._losses(logits, y), logits.argmax(1) == y
                start, cotangent = losses.sum() if self.feasible else losses.mean(), None
            grad = _gradient_at(leaf, start, cotangent)
        return grad, losses.detach(), correct == self.targeted

    def _objective(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where backpropagation starts, and with what."""
        if isinstance(self._loss, KernelLoss) and self.feasible:  # 100 us less than through autograd
            grad = self._loss.gradient(logits, y)
            return logits, (-grad if self.targeted else grad)
        losses = self._losses(logits, y)
        # Summed, so that a sample's gradient does not shrink (and underflow) as the batch grows.
        return (losses.sum() if self.feasible else losses.mean()), None

    def _logits(self, x: Tensor, model: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The model's, or those of what stands for it."""
        return self._checked((unwrapped(self.model) if model is None else model)(x), x)

    @staticmethod
    def _checked(logits: Tensor, x: Tensor) -> Tensor:
        expected = f"expected floating ({x.shape[0]}, C) logits"
        if not isinstance(logits, Tensor):
            raise TypeError(f"model returned a {type(logits).__name__}: {expected}")
        if not logits.is_floating_point() or logits.dim() != 2 or logits.shape[0] != x.shape[0]:
            raise ValueError(f"model returned {logits.dtype} {tuple(logits.shape)}: {expected}")
        return logits if logits.dtype == torch.float64 else logits.float()

    def _losses(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = self._loss(logits, y)
        if not isinstance(losses, Tensor) or losses.shape != y.shape:
            found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"loss returned {found}: expected one loss per sample, a tensor {tuple(y.shape)}")
        return -losses if self.targeted else losses

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(eps={self.eps}, alpha={self.alpha}, steps={self.steps}, norm={self.norm!r}, "
            f"random_start={self.random_start}, init={self.init!r}, restarts={self.restarts}, mode={self.mode!r}, "
            f"targeted={self.targeted}, precision={self.precision!r}, lower={self.lower!r}, compile={self.compile!r})"
        )


def _gradient_at(leaf: Tensor, start: Tensor, cotangent: Tensor | None) -> Tensor:
    # Views that were made in no_grad() claim to require a gradient, which is only true of leaves.
    differentiable = start is leaf or start.grad_fn is not None
    grad = torch.autograd.grad(start, leaf, cotangent, allow_unused=True)[0] if differentiable else None
    if grad is None:
        raise ValueError("model has no gradient at its input: expected a differentiable one, not in no_grad()")
    return grad
