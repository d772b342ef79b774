"""You only propagate once."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ..ops import conv_act_backward_pgd_step_, pgd_step_
from .first_layer import FirstLayer, find
from .isolation import isolated
from .pgd import PGD


class YOPO(PGD):
    """PGD whose inner updates run through the first layer alone (Zhang et al., YOPO, arXiv 1905.00877).

    ``m`` times: a pass through the whole model gives the gradient p at the first layer's output; then, with p as it is,
    ``n`` Linf steps along the gradient of sum(p first_layer(x_adv)). A convolution (with a batch norm in eval mode) and
    an activation of this package make all n steps in one kernel, see
    :func:`sat_kernels.ops.conv_act_backward_pgd_step_`; any other first layer runs as it is.

    With a first layer without activation the gradient is the same in all n steps, which then amount to one step of
    n alpha: see docs/attacks.md.

    Args:
        model: as for :class:`PGD`; an ``nn.Module``.
        first_layer: the name of the module that ends the first layer; None: the first convolution with the batch norm
            and activation that follow, as far as all of the input goes through them.
        m: passes through the whole model >= 0.
        n: steps per pass >= 1.
        eps: radius >= 0, in the Linf norm.
        alpha: step size >= 0 of each of the m n steps.
        random_start, targeted, clip_min, clip_max, restarts, loss, init, mode, precision, lower, generator: as for
            :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above; in a call, there is no such first layer.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        first_layer: str | None = None,
        m: int = 5,
        n: int = 3,
        eps: float | Tensor = 8 / 255,
        alpha: float | Tensor = 2 / 255,
        random_start: bool = True,
        *,
        targeted: bool = False,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        restarts: int = 1,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "ce",
        init: str = "uniform",
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool | Collection[str] = True,
        generator: torch.Generator | None = None,
    ):
        for name, value, least in (("m", m, 0), ("n", n, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: expected an integer >= {least}")
        start = {"random_start": random_start, "restarts": restarts, "init": init, "generator": generator}
        how = {"targeted": targeted, "loss": loss, "mode": mode, "precision": precision, "lower": lower}
        super().__init__(model, eps, alpha, steps=m, clip_min=clip_min, clip_max=clip_max, **start, **how)
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}: expected an nn.Module")
        self.first_layer, self.m, self.n = first_layer, m, n
        self._layer: FirstLayer | None = None

    def _run(self, x: Tensor, y: Tensor, seed: int, sample_ids: Tensor, restart: int) -> Tensor:
        x_adv = self._start(x, seed, sample_ids, restart)
        if self.m == 0:
            return x_adv
        if self._layer is None or not self._layer.is_of(self.model):
            with isolated(self.model, "eval", x.device):  # statistics do not change by what is not part of the attack
                self._layer = find(self.model, x.clone(), self.first_layer)
        fused = self._layer.fused(x) if self.lower else None
        sizes = {"eps": self.eps, "alpha": self.alpha} | self._box()
        for _ in range(self.m):
            p = self._gradient_at_output(x_adv, y)
            if fused is not None:
                conv_act_backward_pgd_step_(p, x_adv, x, steps=self.n, **fused, **sizes)
                continue
            for _ in range(self.n):
                pgd_step_(x_adv, self._input_gradient(x_adv, p), x, **sizes)
        return x_adv

    def _gradient_at_output(self, x_adv: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad(), self._layer.cut() as leaves:
            start, cotangent = self._objective(self._logits(x_adv.clone()), y)
            return torch.autograd.grad(start, leaves[0], cotangent)[0]

    def _input_gradient(self, x_adv: Tensor, p: Tensor) -> Tensor:
        x_adv = x_adv.detach().clone().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self._layer(x_adv), x_adv, p)[0]

    def __repr__(self) -> str:
        steps = f"m={self.m}, n={self.n}, first_layer={self.first_layer!r}"
        return super().__repr__().replace(f"steps={self.steps}, norm='Linf'", steps)
