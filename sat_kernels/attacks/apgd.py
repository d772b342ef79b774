"""APGD, the attack without a step size to choose."""

from collections.abc import Callable, Collection
from itertools import product
from numbers import Real

import torch
from torch import Tensor

from ..ops import APGDState, apgd_checkpoints, apgd_step_, apgd_update_
from .arguments import check_integer, multiple
from .bests import Bests, compacted
from .losses import KernelLoss
from .pgd import PGD


class APGD(PGD):
    """Auto-PGD (Croce and Hein, arXiv 2003.01690; in L1: arXiv 2103.01208), with AutoAttack's rules and constants.

    Steps begin with 2 eps (L1: eps) and have momentum. At checkpoints a sample's step size is halved, and it goes on
    from its best point, where its loss rose too seldom; L1 adapts how many elements move, too. See
    :func:`sat_kernels.ops.apgd_update_`.

    A run returns per sample the last point that it found to fool the model, if the model agrees, else the one of
    highest loss; restarts likewise, the first that succeeds.

    Args:
        model: as for :class:`PGD`.
        eps: radius >= 0 in ``norm``; a number or a (B,) tensor.
        steps: number of steps >= 0.
        norm: "Linf", "L2" or "L1".
        loss: "ce", "odds", "cw", "dlr" or a callable, as for :class:`PGD`.
        restarts: starts >= 1. Where samples are independent of each other, the next ones are only for those that the
            model still gets right.
        rho: share of steps, 0 to 1: the step size is halved where the loss rose in at most so many.
        random_start: as for :class:`PGD`, distributed as AutoAttack's.
        early_stop: as for :class:`PGD`; a sample leaves once a point fools the model.
        targeted, clip_min, clip_max, mode, precision, lower, compile, generator: as for :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        steps: int = 100,
        *,
        norm: str = "Linf",
        loss: str | Callable[[Tensor, Tensor], Tensor] = "ce",
        restarts: int = 1,
        rho: float = 0.75,
        random_start: bool = True,
        targeted: bool = False,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool | Collection[str] = True,
        compile: bool = False,
        early_stop: bool = False,
        generator: torch.Generator | None = None,
    ):
        super().__init__(
            model,
            eps,
            multiple(1.0 if norm == "L1" else 2.0, eps),
            steps,
            random_start,
            norm=norm,
            targeted=targeted,
            clip_min=clip_min,
            clip_max=clip_max,
            restarts=restarts,
            loss=loss,
            # AutoAttack's, which are on the ball's surface; in L1, normal noise projected to ball and box.
            init="normal(1)" if norm == "L1" else "sphere",
            mode=mode,
            precision=precision,
            lower=lower,
            compile=compile,
            early_stop=early_stop,
            generator=generator,
        )
        if not isinstance(rho, Real) or not 0 <= rho <= 1:
            raise ValueError(f"rho={rho!r}: expected a number from 0 to 1")
        self.rho = rho

    def _run(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        if self.early_stop:
            self._check_early_stop()
        x_adv = self._start(x, seed, sample_ids, restart)
        attack, result, batch = self, x_adv.clone(), x.shape[0]
        index = torch.arange(batch, device=x.device)
        grad, loss, fooled = self._evaluate(x_adv, y)
        state = APGDState.start(x_adv, grad, loss, fooled, eps=self.eps, norm=self.norm)
        state.previous_loss.zero_()  # as AutoAttack has it, where the paper has the starting point's
        # The update writes gradients, and what the model gives may be anybody's.
        grad = state.best_grad.clone()
        x_prev, last, checkpoints = x_adv.clone(), 0, apgd_checkpoints(self.steps, self.norm)
        for step in range(1, self.steps + 1):
            sizes = {"eps": attack.eps, "step_size": state.step_size, "top_k": state.top_k}
            apgd_step_(x_adv, x_prev, grad, x, norm=self.norm, first=step == 1, **sizes, **self._box())
            found, loss, fooled = attack._evaluate(x_adv, y)
            grad.copy_(found)
            since = step - last if step in checkpoints else 0
            apgd_update_(state, x_adv, grad, loss, fooled, x=x, checkpoint=since, rho=self.rho)
            last += since
            if attack.early_stop and compacted(~state.success, batch).numel() < index.numel():
                found = attack._agreed(state, y)
                kept = compacted(~state.success, batch)
                if kept.numel() == index.numel():
                    continue
                result.index_copy_(0, index, found)
                if kept.numel() == 0:
                    return result
                attack, index = attack._of(kept), index[kept]
                x_adv, x_prev, x, y, grad = (tensor[kept] for tensor in (x_adv, x_prev, x, y, grad))
                state = APGDState(**{name: t if t is None else t[kept] for name, t in vars(state).items()})
        return result.index_copy_(0, index, attack._agreed(state, y))

    def _agreed(self, state: APGDState, y: Tensor) -> Tensor:
        """What has been found, with success where the user's own model agrees."""
        state.success &= self._judge(state.result(), y)[1]
        return state.result()


class APGDT(APGD):
    """APGD on the targeted DLR loss (Croce and Hein, arXiv 2003.01690): one run per target class and restart.

    Target classes are those of the largest clean logits after the label's. A sample that the model already gets wrong
    is returned as it is; another one as the first point of a run that the model misclassifies, else as the point
    (or ``x`` itself) of highest untargeted DLR loss.

    Args:
        n_target_classes: how many >= 1; at most as many as there are other classes.
        Others: as for :class:`APGD`. ``y`` are labels: there is no ``targeted``. The model has at least 4 classes.

    Raises:
        TypeError, ValueError: an argument is not as above; in a call, the model has less than 4 classes.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float | Tensor = 8 / 255,
        steps: int = 100,
        *,
        norm: str = "Linf",
        n_target_classes: int = 9,
        restarts: int = 1,
        rho: float = 0.75,
        random_start: bool = True,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool | Collection[str] = True,
        compile: bool = False,
        early_stop: bool = False,
        generator: torch.Generator | None = None,
    ):
        box = {"clip_min": clip_min, "clip_max": clip_max}
        how = {"mode": mode, "precision": precision, "lower": lower, "compile": compile, "generator": generator}
        again = {"restarts": restarts, "rho": rho, "random_start": random_start, "early_stop": early_stop}
        super().__init__(model, eps, steps, norm=norm, loss="dlr", **again, **box, **how)
        check_integer("n_target_classes", n_target_classes, 1)
        self.n_target_classes = n_target_classes

    def _best_of_restarts(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor) -> Tensor:
        logits = self._logits(x.clone())
        if logits.shape[1] < 4:
            raise ValueError(
                f"model has {logits.shape[1]} classes: expected at least 4, as the targeted DLR loss needs"
            )
        bests = Bests(x, self._losses(logits, y), logits.argmax(1) != y)
        ranked = logits.argsort(dim=1, descending=True, stable=True)
        classes = min(self.n_target_classes, logits.shape[1] - 1)
        for run, (rank, _) in enumerate(product(range(1, classes + 1), range(self.restarts))):
            towards = KernelLoss("dlr_targeted", targets=ranked[:, rank].contiguous())
            self._run_again(bests, x, y, seed, sample_ids, run, towards)
        return bests.points
