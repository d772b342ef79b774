"""Single-step latent adversarial training's perturbations."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from ..nn.perturbed import PerturbedActivation
from .arguments import multiple
from .pgd import PGD


class SLAT(PGD):
    """One step of the input and of latent features, from one backward pass (Park and Lee, arXiv 2104.01575).

    The features are the inputs of the model's :class:`sat_kernels.nn.PerturbedActivation` modules, each of which has
    its own eps, alpha and bounds. Calling the attack returns the perturbed input alone. To train, run the model on it
    within :meth:`perturbed`, where the features are perturbed, too::

        attack = SLAT(model)
        with attack.perturbed(x, y) as x_adv:
            loss = F.cross_entropy(model(x_adv), y)
        loss.backward()

    Args:
        model: as for :class:`PGD`; an ``nn.Module``.
        eps: radius >= 0 of the input's ball.
        alpha: step size of the input >= 0; None: 0.9 eps, as published.
        layers: names of PerturbedActivation modules in ``model``; None: all of them.
        Others: as for :class:`PGD`.

    Raises:
        TypeError, ValueError: an argument is not as above; ``model`` has no such modules.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        eps: float | Tensor = 8 / 255,
        alpha: float | Tensor | None = None,
        layers: Sequence[str] | None = None,
        *,
        targeted: bool = False,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        loss: str | Callable[[Tensor, Tensor], Tensor] = "ce",
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool | Collection[str] = True,
        compile: bool = False,
    ):
        alpha = multiple(0.9, eps) if alpha is None else alpha
        box = {"clip_min": clip_min, "clip_max": clip_max}
        how = {"mode": mode, "precision": precision, "lower": lower, "compile": compile}
        super().__init__(model, eps, alpha, steps=1, random_start=False, targeted=targeted, loss=loss, **box, **how)
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model is a {type(model).__name__}: expected an nn.Module")
        found = {name: m for name, m in model.named_modules() if isinstance(m, PerturbedActivation)}
        if not found:
            raise ValueError("model has no nn.PerturbedActivation: expected one for each activation to be perturbed")
        for name in layers or ():
            if name not in found:
                raise ValueError(f"layers has {name!r}: expected names of PerturbedActivation modules, {list(found)}")
        self.layers = [found[name] for name in (found if layers is None else layers)]

    def __call__(self, x: Tensor, y: Tensor | None = None, *, sample_ids: Tensor | None = None) -> Tensor:
        with self.perturbed(x, y, sample_ids=sample_ids) as x_adv:
            return x_adv

    __call__.__doc__ = PGD.__call__.__doc__

    @contextlib.contextmanager
    def perturbed(self, x: Tensor, y: Tensor | None = None, *, sample_ids: Tensor | None = None) -> Iterator[Tensor]:
        """Gives x_adv; within it the model's features are perturbed, afterwards they are as before."""
        before = [layer.delta for layer in self.layers]
        try:
            for layer in self.layers:
                layer.reset()
            yield super().__call__(x, y, sample_ids=sample_ids)
        finally:
            for layer, delta in zip(self.layers, before, strict=True):
                layer.delta = delta

    def explain(self) -> str:
        """How gradients are computed, as of the last call; see :meth:`PGD.explain`."""
        every = sum(isinstance(module, PerturbedActivation) for module in self.model.modules())
        steps = f"{len(self.layers)} of {every} PerturbedActivation modules, which step in the backward pass"
        return f"{super().explain()}\nlatent features: {steps}; others hold still"

    def _gradient(self, x_adv: Tensor, y: Tensor) -> Tensor:
        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(layer.stepping())
            return super()._gradient(x_adv, y)
