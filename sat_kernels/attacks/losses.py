"""What an attack maximises: a loss for each sample."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..ops import attack_loss, attack_loss_and_grad

# Those of ops.attack_loss that need logits and labels alone.
LOSSES = ("ce", "odds", "cw", "dlr")


def resolve(loss, exact: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of float32 or float64 (B, C) logits and (B,) labels; ``exact``: with torchattacks' bits."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: expected one of {', '.join(map(repr, LOSSES))} or a callable (logits, y)")
    if loss == "ce" and exact:
        return lambda logits, y: F.cross_entropy(logits, y, reduction="none")
    return KernelLoss(loss)


class KernelLoss:
    """One of :func:`sat_kernels.ops.attack_loss`, whose gradient at the logits needs no autograd."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return attack_loss(logits, y, self.name).loss

    def gradient(self, logits: Tensor, y: Tensor) -> Tensor:
        """That of the sum over the batch."""
        return attack_loss_and_grad(logits, y, self.name).grad
