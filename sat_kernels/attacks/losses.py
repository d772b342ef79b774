"""What an attack maximises: a loss for each sample."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..ops import LossAndGradient, attack_loss, attack_loss_and_grad
from ..ops.losses import check_range

# Those of ops.attack_loss that need logits and labels alone.
LOSSES = ("ce", "odds", "cw", "dlr")


def resolve(loss, exact: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of float32 or float64 (B, C) logits and (B,) labels; ``exact``: with torchattacks' bits."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: expected one of {', '.join(map(repr, LOSSES))} or a callable (logits, y)")
    if loss == "ce" and exact:
        return cross_entropy
    return KernelLoss(loss)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """torch's, for each sample; labels are classes."""
    if y.device.type == "cpu":
        check_range("y", y, logits.shape[1])
    return F.cross_entropy(logits, y, reduction="none")


class KernelLoss:
    """One of :func:`sat_kernels.ops.attack_loss`, whose gradient at the logits needs no autograd.

    ``of_samples``: its ``targets`` or ``clean_logits``.
    """

    def __init__(self, name: str, **of_samples: Tensor):
        self.name, self.of_samples = name, of_samples

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return attack_loss(logits, y, self.name, **self.of_samples).loss

    def gradient(self, logits: Tensor, y: Tensor) -> Tensor:
        """That of the sum over the batch."""
        return self.evaluate(logits, y).grad

    def evaluate(self, logits: Tensor, y: Tensor) -> LossAndGradient:
        return attack_loss_and_grad(logits, y, self.name, **self.of_samples)

    def __getitem__(self, index: Tensor) -> "KernelLoss":
        """The loss of some of the samples."""
        return KernelLoss(self.name, **{name: values[index] for name, values in self.of_samples.items()})
