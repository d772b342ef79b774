"""The fast gradient sign method and what came of it."""

import copy
from collections.abc import Callable, Collection
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from ..ops import momentum_step_, pgd_step_, random_start
from .arguments import multiple
from .pgd import PGD


class FGSM(PGD):
    """One step from the clean input (Goodfellow et al., arXiv 1412.6572), or from a random start (Wong et al., arXiv
    2001.03994); or its like for L2 and L1.

    Args:
        eps: radius, as for :class:`PGD`.
        random_start: whether to start at a random point of the ball, see ``init``.
        alpha: step size >= 0, a number or a (B,) tensor; None: eps, or 1.25 eps from a random start, as published.
        restarts: as for :class:`PGD`; of use from random starts.
        Others: as for :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        *,
        random_start: bool = False,
        alpha: float | Tensor | None = None,
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
        generator: torch.Generator | None = None,
    ):
        if alpha is None:
            alpha = multiple(1.25, eps) if random_start is True else eps
        super().__init__(
            model,
            eps,
            alpha,
            steps=1,
            random_start=random_start,
            norm=norm,
            targeted=targeted,
            clip_min=clip_min,
            clip_max=clip_max,
            restarts=restarts,
            loss=loss,
            init=init,
            mode=mode,
            precision=precision,
            lower=lower,
            compile=compile,
            feasible=feasible,
            generator=generator,
        )


class NFGSM(PGD):
    """One step of size eps from noise, without a projection to the ball (de Jorge et al., N-FGSM, arXiv 2202.01181).

    The noise is U(-k eps, k eps), in the box; so results are within (1 + k) eps of ``x``, and in the box, in exact
    arithmetic.

    Args:
        eps: step size >= 0; a number or a (B,) tensor.
        k: size of the noise >= 0, in eps.
        Others: as for :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    _called: ClassVar = {"alpha": "eps", "random_start": "k"}

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        k: float = 2.0,
        *,
        targeted: bool = False,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        restarts: int = 1,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "ce",
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool | Collection[str] = True,
        compile: bool = False,
        generator: torch.Generator | None = None,
    ):
        box = {"clip_min": clip_min, "clip_max": clip_max}
        how = {"mode": mode, "precision": precision, "lower": lower, "compile": compile, "generator": generator}
        super().__init__(model, eps, eps, steps=1, targeted=targeted, restarts=restarts, loss=loss, **box, **how)
        if not isinstance(k, Real) or not 0 <= k < float("inf"):
            raise ValueError(f"k={k!r}: expected a finite number >= 0")
        self.k = float(k)

    def _start(self, x: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        key = {"seed": seed, "sample_ids": sample_ids, "restart": restart}
        return random_start(x, eps=self.k * self.eps, **self._box(), **key)

    def _step(self, x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        return pgd_step_(x_adv, grad, x, eps=(1 + self.k) * self.eps, alpha=self.alpha, **self._box())


class MIFGSM(PGD):
    """Steps along the sign of the gradients' running sum, in the Linf ball (Dong et al., MI-FGSM, arXiv 1710.06081).

    See :func:`sat_kernels.ops.momentum_step_`.

    Args:
        decay: of the running sum; finite.
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
        decay: float = 1.0,
        *,
        random_start: bool = False,
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
        early_stop: bool = False,
        generator: torch.Generator | None = None,
    ):
        start = {"restarts": restarts, "init": init, "generator": generator}
        how = {
            "targeted": targeted,
            "loss": loss,
            "mode": mode,
            "precision": precision,
            "lower": lower,
            "compile": compile,
            "early_stop": early_stop,
        }
        super().__init__(model, eps, alpha, steps, random_start, clip_min=clip_min, clip_max=clip_max, **start, **how)
        if not isinstance(decay, Real) or not abs(decay) < float("inf"):
            raise ValueError(f"decay={decay!r}: expected a finite number")
        self.decay = float(decay)
        self._momentum: Tensor | None = None  # of a run

    def _run(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        attack = copy.copy(self)
        attack._momentum = torch.zeros_like(x)
        return super(MIFGSM, attack)._run(x, y, seed, sample_ids, restart)

    def _of(self, index: Tensor) -> "MIFGSM":
        attack = super()._of(index)
        attack._momentum = None if self._momentum is None else self._momentum[index]
        return attack

    def _step(self, x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        sizes = {"eps": self.eps, "alpha": self.alpha, "decay": self.decay}
        return momentum_step_(x_adv, self._momentum, grad, x, **sizes, **self._box())
