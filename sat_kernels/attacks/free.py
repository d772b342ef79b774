"""Free adversarial training's perturbations."""

import math
from collections.abc import Callable, Iterator
from numbers import Real

import torch
from torch import Tensor

from ..ops import pgd_step_, project_
from .arguments import check_box, check_call, check_integer
from .foreign_names import NamesArguments


class Free(NamesArguments):
    """Steps of the input from the backward passes that train the model (Shafahi et al., arXiv 1904.12843).

    Each batch is trained on ``replays`` times. The backward pass that gives the gradients of the weights gives that of
    the input, too, and with it the perturbation takes a step, from which the next replay and then the next batch go
    on::

        free = Free(model, eps=8 / 255, replays=4)
        for x, y in loader:
            for x_adv in free(x):
                loss = F.cross_entropy(model(x_adv), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    x_adv is x + delta, projected to ball and box in exact arithmetic; delta <- clip(delta + alpha sign(g), -eps, eps),
    where g is the gradient at x_adv. That is the paper's algorithm; docs/attacks.md says where its code differs.

    The model is not run here, nor are its modes changed: what the caller's passes do is training (published: batch norm
    in training mode).

    Args:
        model: what is trained.
        eps: radius >= 0 in the Linf norm, in the units of the input.
        alpha: step size >= 0; None: eps, as published.
        replays: the paper's m >= 1: how often each batch is trained on. Published schedules have 1 / m of the epochs.
        clip_min, clip_max: the box of valid inputs.

    Attributes:
        delta: the perturbation of the sample at each position of a batch, a tensor of the largest batch's shape, in x's
            dtype and on its device; None before the first batch. Positions that no batch has had yet begin at 0.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        eps: float = 8 / 255,
        alpha: float | None = None,
        replays: int = 4,
        *,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
    ):
        if not callable(model):
            raise TypeError(f"model is a {type(model).__name__}: expected a callable, such as an nn.Module")
        alpha = eps if alpha is None else alpha
        for name, value in (("eps", eps), ("alpha", alpha)):
            if not isinstance(value, Real) or not value >= 0:
                raise ValueError(f"{name}={value!r}: expected a number >= 0")
        check_integer("replays", replays, 1)
        check_box(clip_min, clip_max)
        self.model, self.eps, self.alpha, self.replays = model, float(eps), float(alpha), replays
        self.clip_min, self.clip_max = float(clip_min), float(clip_max)
        self.delta: Tensor | None = None

    def __call__(self, x: Tensor) -> Iterator[Tensor]:
        """Gives x_adv ``replays`` times; each time the caller makes one backward pass through it.

        Args:
            x: (B, ...) float32 or float64, inside the box, in any memory format. On a CPU, values outside give a
                warning; on a GPU, looking would wait for it.

        Returns:
            Iterator of leaves of x's shape, dtype and memory format that require a gradient. When it is asked for the
            next one, and at the end of the loop, ``x_adv.grad`` makes the step; it may be scaled (``GradScaler``), and
            where it is NaN there is no step. A loop that is left early makes none for its last x_adv.

        Raises:
            TypeError, ValueError: ``x`` is not as above, or its samples do not have delta's shape.
            RuntimeError: in the loop; there was no backward pass.
        """
        check_call(x, None, None, {}, False, self.clip_min, self.clip_max)
        if self.delta is not None and x.shape[1:] != self.delta.shape[1:]:
            shapes = ", ".join(map(str, self.delta.shape[1:]))
            raise ValueError(f"x has shape {tuple(x.shape)}: expected (B, {shapes}), as delta has, or a reset() before")
        return self._replays(x)

    def _replays(self, x: Tensor) -> Iterator[Tensor]:
        for replay in range(self.replays):
            x_adv = self._point(x)
            yield x_adv
            if x_adv.grad is None:
                raise RuntimeError(
                    f"x_adv.grad is None after replay {replay + 1} of {self.replays}: expected loss.backward() in the "
                    "body of the loop, of a loss of model(x_adv)"
                )
            self._step(x, x_adv.grad)

    def reset(self) -> None:
        """Forgets ``delta``."""
        self.delta = None

    def state_dict(self) -> dict[str, Tensor | None]:
        """A copy of ``delta``, with which a run can go on bit for bit."""
        return {"delta": None if self.delta is None else self.delta.clone()}

    def load_state_dict(self, state: dict[str, Tensor | None]) -> None:
        """Takes a copy of what :meth:`state_dict` returned, also from another device."""
        delta = state["delta"]
        if delta is not None and not (isinstance(delta, Tensor) and delta.is_floating_point() and delta.dim()):
            raise TypeError(f"delta is {delta!r}: expected None or a floating tensor (B, ...)")
        self.delta = None if delta is None else delta.detach().clone()

    # Modes of the caller's are left out in each of these: held across a yield, they would leak into the loop's body.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _point(self, x: Tensor) -> Tensor:
        x_adv = x.clone().add_(self._rows(x))
        return project_(x_adv, x, eps=self.eps, clip_min=self.clip_min, clip_max=self.clip_max).requires_grad_()

    @torch.inference_mode(False)
    @torch.no_grad()
    def _step(self, x: Tensor, grad: Tensor) -> None:
        delta = self._rows(x)
        everywhere = {"clip_min": -math.inf, "clip_max": math.inf}
        pgd_step_(delta, grad, torch.zeros_like(delta), eps=self.eps, alpha=self.alpha, **everywhere)

    def _rows(self, x: Tensor) -> Tensor:
        """Those of ``delta`` for the batch, which change with it."""
        delta = torch.zeros_like(x) if self.delta is None else self.delta.to(x)
        missing = max(0, x.shape[0] - delta.shape[0])
        self.delta = torch.cat([delta, delta.new_zeros(missing, *x.shape[1:])]) if missing else delta
        return self.delta[: x.shape[0]]

    def __repr__(self) -> str:
        box = f"clip_min={self.clip_min}, clip_max={self.clip_max}"
        return f"{type(self).__name__}(eps={self.eps}, alpha={self.alpha}, replays={self.replays}, {box})"
