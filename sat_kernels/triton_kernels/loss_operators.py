"""The losses as csrc/loss_operators.h has them: checks, allocation, and the launch."""

import torch
import triton
from torch import Tensor

from ..ops.losses import LOSSES, MOST_CLASSES
from . import losses
from .operators import bits, check_like, compute_type

# Classes of a tile: 8 or 16 for each thread.
TILE, WARPS = 4096, 4


def options(size: int) -> dict:
    return {"num_warps": WARPS if size <= 1024 else 2 * WARPS, "enable_fp_fusion": True}


def tile_of(classes: int) -> int:
    return min(triton.next_power_of_2(classes), TILE)


def attack_loss(
    logits: Tensor, y: Tensor, targets: Tensor | None, clean: Tensor | None, loss: int, beta: float, grad: bool,
    clean_grad: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    name = list(LOSSES)[loss]
    rows, classes = logits.shape
    if not LOSSES[name] <= classes <= MOST_CLASSES:
        raise RuntimeError(f"logits have {classes} classes: expected {LOSSES[name]} to {MOST_CLASSES}")
    if (clean is not None) != (name in ("kl", "mart")) or (targets is not None) != (name == "dlr_targeted"):
        raise RuntimeError("clean_logits: expected for kl and mart only; targets: for dlr_targeted only")
    for label, tensor in (("y", y), ("targets", targets)):
        if tensor is not None and (tensor.dtype != torch.int64 or tensor.shape != (rows,) or tensor.device != y.device):
            raise RuntimeError(f"{label}: expected int64, one for each row of logits, on their device")
    if clean is not None:
        check_like("clean_logits", clean, "logits", logits)
    dtype, compute = compute_type(logits)
    z, other = (t if t.stride(1) == 1 else t.contiguous() for t in (logits, logits if clean is None else clean))
    value, margin = (logits.new_empty(rows, dtype=dtype) for _ in range(2))
    correct = logits.new_empty(rows, dtype=torch.bool)
    to, clean_to = (logits.new_empty((rows, classes) if wanted else 0) for wanted in (grad, clean_grad))
    if rows > 0:
        y = y.contiguous()
        size = tile_of(classes)
        with torch.cuda.device_of(logits):
            losses.losses[(rows,)](
                z, other, y, y if targets is None else targets.contiguous(), value, correct.view(torch.int8), margin,
                to, clean_to, z.stride(0), other.stride(0), classes, bits(beta, torch.float64),
                bits(torch.finfo(logits.dtype).max, torch.float64), LOSS=name, GRAD=grad, CLEAN_GRAD=clean_grad,
                COMPUTE=compute, SIZE=size, **options(size),
            )  # fmt: skip
    return value, correct, margin, to, clean_to
