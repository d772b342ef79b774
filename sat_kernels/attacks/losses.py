"""What an attack maximises: a loss for each sample."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ..ops import attack_loss

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
    return lambda logits, y: attack_loss(logits, y, loss).loss
