"""ReLU with a smooth backward, and the choice of the backward per call."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import functional as F
from ..activations import ACTIVATIONS

_ROW = ACTIVATIONS["relu_smooth_backward"]
(_ALPHA,) = _ROW.parameters


class ReLUSmoothBackward(torch.nn.Module):
    """max(x, 0), whose gradient is taken to be sigmoid(alpha * x) (Xie et al., arXiv 2006.14536, section 3).

    For the study of gradient quality. The backward is chosen by each forward call: see :func:`smooth_backward`. Do not
    evaluate with it the robustness of a network that was trained without it.

    Args:
        alpha: number > 0 (the larger, the closer to ReLU's own gradient), or None for ReLU's own. The attribute can be
            changed at any time.
        inplace: whether to overwrite the input.

    Shape: any floating tensor; the output has its shape and dtype.

    Raises:
        ValueError: ``alpha`` is not as above.
    """

    def __init__(self, alpha: float | None = _ALPHA.default, inplace: bool = False):
        super().__init__()
        self.alpha, self.inplace = _checked(alpha), inplace

    def forward(self, input: Tensor) -> Tensor:
        if self.alpha is None:
            return torch.nn.functional.relu(input, self.inplace)
        return F.relu_smooth_backward(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + ", inplace=True" * self.inplace


@contextlib.contextmanager
def smooth_backward(model: torch.nn.Module, alpha: float | None) -> Iterator[None]:
    """Sets ``alpha`` of every :class:`ReLUSmoothBackward` in ``model`` for the forward passes inside the block.

    The learner may take ReLU's own gradient where the attacker took the smooth one::

        x_adv = attacks.PGD(model)(x, y)
        with nn.smooth_backward(model, None):
            criterion(model(x_adv), y).backward()

    With activation checkpointing, which repeats forward passes, the backward has to be inside of the block.

    Raises:
        ValueError: ``alpha`` is neither a number > 0 nor None, or ``model`` has no such module.
    """
    alpha = _checked(alpha)
    modules = [m for m in model.modules() if isinstance(m, ReLUSmoothBackward)]
    if not modules:
        raise ValueError(f"model is a {type(model).__name__} without a ReLUSmoothBackward: expected at least one")
    before = [m.alpha for m in modules]
    try:
        for module in modules:
            module.alpha = alpha
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.alpha = value


def _checked(alpha: float | None) -> float | None:
    if alpha is not None:
        _ROW.check(_ALPHA, alpha)
    return alpha
