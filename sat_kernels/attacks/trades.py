"""TRADES and MART: their attacks, and the losses that they train with."""

import copy
from collections.abc import Callable, Collection
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from ..ops import attack_loss
from .arguments import check_flags
from .engine import has_bf16
from .losses import KernelLoss
from .pgd import PGD


class _Regularised(PGD):
    """PGD from a start next to the clean input, and a loss of the clean and the adversarial logits."""

    _called: ClassVar = {"random_start": "init"}

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        alpha: float | Tensor = 2 / 255,
        steps: int = 10,
        beta: float = 6.0,
        *,
        norm: str = "Linf",
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        restarts: int = 1,
        init: str = "normal(0.001)",
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool | Collection[str] = True,
        compile: bool = False,
        early_stop: bool = False,
        generator: torch.Generator | None = None,
    ):
        box = {"clip_min": clip_min, "clip_max": clip_max}
        how = {"mode": mode, "precision": precision, "lower": lower, "compile": compile, "generator": generator}
        again = {"restarts": restarts, "early_stop": early_stop}
        super().__init__(model, eps, alpha, steps, norm=norm, init=init, **again, **box, **how)
        if not isinstance(beta, Real) or not 0 <= beta < float("inf"):
            raise ValueError(f"beta={beta!r}: expected a finite number >= 0")
        self.beta = float(beta)

    def loss(self, x: Tensor, y: Tensor, *, sample_ids: Tensor | None = None) -> Tensor:
        """What to minimise, see the class; differentiable once.

        Args, errors: as of :meth:`loss_and_logits`.

        Returns:
            0-d tensor, a mean over the batch.
        """
        return self.loss_and_logits(x, y, sample_ids=sample_ids)[0]

    def loss_and_logits(self, x: Tensor, y: Tensor, *, sample_ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`loss`, and the model's logits on the adversarial examples, which say how many fool it.

        After the attack, the model runs once on ``x`` and once on the adversarial examples, in the mode, autocast and
        grad mode that the caller has it in; logits of 16 bits are taken to float32.

        Args:
            x, y, sample_ids: as in a call of the attack, but ``y`` are needed.

        Returns:
            The loss, and (B, C) logits, both with the graph of their gradients.

        Raises:
            TypeError, ValueError: an argument is not as above.
        """
        if y is None:
            raise ValueError("y=None: expected the (B,) labels to train with")
        x_adv = self(x, y, sample_ids=sample_ids)
        clean, logits = self.model(x), self.model(x_adv)
        return self._outer_loss(clean, logits, y.to(clean.device, torch.int64)), logits

    def _outer_loss(self, clean: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


class TRADES(_Regularised):
    """The attack of TRADES (Zhang et al., arXiv 1901.08573): PGD on KL(softmax f(x) || softmax f(x_adv)).

    The clean logits are computed once. Labels are not used: the attack succeeds where the model predicts another class
    than for ``x``, and with several restarts the best of those that fail is that of the highest divergence.
    :meth:`loss`, to be minimised, is the mean of the clean cross-entropy + beta KL(softmax f(x) || softmax f(x_adv));
    both logits have gradients.

    Args:
        eps, alpha, steps: as for :class:`PGD`. Published for CIFAR-10: 0.031, 0.007, 10.
        beta: weight >= 0 of the divergence in :meth:`loss`.
        restarts, early_stop: as for :class:`PGD`, by the success above; they need the model's own clean logits, too.
        precision: as for :class:`PGD`, but for the first step, which is in the model's own and belongs to the start.
        init: the start; by default x + 0.001 N(0, 1), since at ``x`` itself the gradient is 0.
        Others: as for :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    # Of a call: the loss of the model's own clean logits, and the attack that makes the first step, if another one.
    _judged_by: KernelLoss
    _first: "TRADES | None" = None

    def __call__(self, x: Tensor, y: Tensor | None = None, *, sample_ids: Tensor | None = None) -> Tensor:
        if y is None and isinstance(x, Tensor) and x.dim() > 0:
            y = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)  # else the model would be asked for them
        return super().__call__(x, y, sample_ids=sample_ids)

    __call__.__doc__ = PGD.__call__.__doc__

    def _best_of_restarts(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor) -> Tensor:
        attack, y = copy.copy(self), torch.zeros_like(y)  # roundings depend on labels, the divergence does not
        # Next to x, logits often differ by less than bf16 has, and a divergence of 0 has no gradient to follow.
        begins_exactly = self.steps > 0 and self.precision == "bf16" and has_bf16(x.device)
        judges = self.restarts > 1 or self.early_stop
        if begins_exactly or judges:
            clean = self._logits(x.clone())
            attack._judged_by = KernelLoss("kl", clean_logits=clean)
            y = clean.argmax(1) if judges else y
        if begins_exactly:
            attack._first = copy.copy(attack)
            attack._first._loss, attack._first._replica = attack._judged_by, None
            attack.steps -= 1
        if attack.steps > 0:
            attack._loss = KernelLoss("kl", clean_logits=self._logits(x.clone(), self._replica))
        return super(TRADES, attack)._best_of_restarts(x, y, seed, sample_ids)

    def _start(self, x: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        x_adv = super()._start(x, seed, sample_ids, restart)
        if self._first is None:
            return x_adv
        return self._step(x_adv, self._first._gradient(x_adv, torch.zeros_like(sample_ids)), x)

    def _of(self, index: Tensor) -> "TRADES":
        attack = super()._of(index)
        attack._judged_by = self._judged_by[index]
        attack._first = None if self._first is None else self._first._of(index)
        return attack

    def _judge(self, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._logits(x_adv.clone())
        return self._judged_by(logits, y), logits.argmax(1) != y

    def _outer_loss(self, clean: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        divergence = attack_loss(logits, y, "kl", clean_logits=clean).loss.mean()
        return attack_loss(clean, y, "ce").loss.mean() + self.beta * divergence


class MART(_Regularised):
    """The attack of MART (Wang et al., ICLR 2020): PGD on the cross-entropy, from next to the clean input.

    :meth:`loss`, to be minimised, is the mean of "mart" of :func:`sat_kernels.ops.attack_loss`: cross-entropy of the
    adversarial logits with a margin, + beta KL(softmax f(x) || softmax f(x_adv)) (1 - p_y(x)).

    Args:
        eps, alpha, steps: as for :class:`PGD`. Published for CIFAR-10: 0.031, 0.007, 10.
        beta: weight >= 0 of the divergence; 6 in the published loss, 5 in its script.
        targeted: as for :class:`PGD`; :meth:`loss` is of labels, and needs an untargeted attack.
        init: the start; by default x + 0.001 N(0, 1).
        Others: as for :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        alpha: float | Tensor = 2 / 255,
        steps: int = 10,
        beta: float = 6.0,
        *,
        norm: str = "Linf",
        targeted: bool = False,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        restarts: int = 1,
        init: str = "normal(0.001)",
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool | Collection[str] = True,
        compile: bool = False,
        early_stop: bool = False,
        generator: torch.Generator | None = None,
    ):
        box = {"clip_min": clip_min, "clip_max": clip_max}
        how = {"mode": mode, "precision": precision, "lower": lower, "compile": compile, "generator": generator}
        again = {"restarts": restarts, "early_stop": early_stop, "init": init}
        super().__init__(model, eps, alpha, steps, beta, norm=norm, **again, **box, **how)
        check_flags({"targeted": targeted})
        self.targeted = targeted

    def loss(self, x: Tensor, y: Tensor, *, sample_ids: Tensor | None = None) -> Tensor:
        if self.targeted:
            raise ValueError("targeted=True: loss() trains with labels, expected an untargeted attack")
        return super().loss(x, y, sample_ids=sample_ids)

    loss.__doc__ = _Regularised.loss.__doc__

    def _outer_loss(self, clean: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        return attack_loss(logits, y, "mart", clean_logits=clean, beta=self.beta).loss.mean()
