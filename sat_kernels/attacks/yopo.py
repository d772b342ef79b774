"""You only propagate once."""

from collections.abc import Callable, Collection
from typing import ClassVar

import torch
from torch import Tensor

from ..ops import conv_act_backward_pgd_step_, pgd_step_
from .arguments import check_integer
from .engine import Rest
from .pgd import PGD


class YOPO(PGD):
    """PGD whose inner updates run through the first layer alone (Zhang et al., YOPO, arXiv 1905.00877).

    ``m`` times: a pass through the whole model gives the gradient p at the first layer's output; then, with p as it is,
    ``n`` Linf steps along the gradient of sum(p first_layer(x_adv)). A convolution (with a batch norm in eval mode) and
    an activation of this package make all n steps in one kernel, see
    :func:`sat_kernels.ops.conv_act_backward_pgd_step_`; any other first layer runs as it is. What follows it is
    lowered as in :class:`PGD`, where it can be told apart: :meth:`explain` tells.

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
        precision: as for :class:`PGD`; the first layer and its steps are in the model's own.
        lower: as for :class:`PGD`; the kernel of the first layer needs "fold" and "fuse".
        compile: whether what follows the first layer is compiled, where it is lowered.
        early_stop: as for :class:`PGD`; looked at in each of the m passes.
        Others: as for :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above; in a call, there is no such first layer.
    """

    _called: ClassVar = {"steps": "m"}

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
        compile: bool = False,
        early_stop: bool = False,
        generator: torch.Generator | None = None,
    ):
        check_integer("m", m, 0)
        check_integer("n", n, 1)
        start = {"random_start": random_start, "restarts": restarts, "init": init, "generator": generator}
        box = {"clip_min": clip_min, "clip_max": clip_max}
        how = {"mode": mode, "precision": precision, "lower": lower, "compile": compile, "early_stop": early_stop}
        super().__init__(model, eps, alpha, steps=m, targeted=targeted, loss=loss, **box, **start, **how)
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}: expected an nn.Module")
        self.first_layer, self.m, self.n = first_layer, int(m), int(n)
        self._replica = Rest(model, first_layer, lower, precision, compile)

    def _pass(self, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        leaf, logits = self._replica(x_adv)
        return leaf, self._checked(logits, x_adv)

    def _step(self, x_adv: Tensor, grad: Tensor, x: Tensor) -> Tensor:
        sizes = {"eps": self.eps, "alpha": self.alpha} | self._box()
        if self._replica.fused is not None:
            return conv_act_backward_pgd_step_(grad, x_adv, x, steps=self.n, **self._replica.fused, **sizes)
        for _ in range(self.n):
            pgd_step_(x_adv, self._input_gradient(x_adv, grad), x, **sizes)
        return x_adv

    def _input_gradient(self, x_adv: Tensor, p: Tensor) -> Tensor:
        x_adv = x_adv.detach().clone().requires_grad_()
        with torch.enable_grad():
            output = self._replica.layer(x_adv)
            return torch.autograd.grad(output, x_adv, p.to(output.dtype))[0]

    def __repr__(self) -> str:
        steps = f"m={self.m}, n={self.n}, first_layer={self.first_layer!r}"
        return super().__repr__().replace(f"steps={self.steps}, norm='Linf'", steps)
