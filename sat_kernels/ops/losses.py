"""Losses of rows of logits, as attacks maximise them: value, gradient at the logits, success and margin at once."""

from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from .activation import has_kernel
from .loss_formulas import plain_loss

# In the order of csrc/losses.h, with the least number of classes.
LOSSES = {"ce": 2, "odds": 2, "cw": 2, "dlr": 3, "dlr_targeted": 4, "kl": 2, "mart": 2}
MOST_CLASSES = 2**24
_NUMBERS = {name: number for number, name in enumerate(LOSSES)}
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class AttackLoss(NamedTuple):
    """Of each row: the loss, whether the label is the largest logit, and by how much."""

    loss: Tensor
    correct: Tensor
    margin: Tensor


class LossAndGradient(NamedTuple):
    """The same with the loss's gradients at the logits."""

    loss: Tensor
    correct: Tensor
    margin: Tensor
    grad: Tensor
    clean_grad: Tensor | None


def attack_loss(
    logits: Tensor,
    y: Tensor,
    loss: str = "ce",
    *,
    targets: Tensor | None = None,
    clean_logits: Tensor | None = None,
    beta: float = 6.0,
) -> AttackLoss:
    """A loss for each row of ``logits``, with its gradient computed in the same kernel.

    ==============  ================================================================================================
    "ce"            cross-entropy, log(1 + exp(odds)): relatively accurate however small it is
    "odds"          log sum exp z_j over j != y, less z_y. The gradient of "ce" divided by 1 - p_y: the same signs and
                    directions per row, but it does not vanish where the model is sure
    "cw"            max z_j over j != y, less z_y (Carlini and Wagner, arXiv 1608.04644, without their bound)
    "dlr"           -(z_y - max z_j) / (z_(1) - z_(3) + 1e-12), z_(k) being the k-th largest (arXiv 2003.01690)
    "dlr_targeted"  -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12), t being ``targets``
    "kl"            KL(softmax(clean_logits) || softmax(logits)) (TRADES, arXiv 1901.08573)
    "mart"          "ce" - log(1.0001 - max p_j + 1e-12) + beta "kl" (1.0000001 - p_y(clean_logits)), max over j != y
                    (MART, ICLR 2020; its code adds 1e-12 to the probabilities in "kl", too)
    ==============  ================================================================================================

    Everything is finite for finite logits of any size: losses, margins and gradients that would overflow are the
    largest number of their dtype. Among equal logits the first has the gradient. A row with NaN or infinite logits has
    NaN for loss, margin and gradient. Labels on a GPU are not looked at, since that would wait for it: a row whose
    label is no class has NaN for loss and margin, and a gradient of zero.

    Args:
        logits: (B, C) float32, float64, bfloat16 or float16, of any strides. 16-bit ones are computed in float32.
        y: (B,) int64 labels.
        loss: one of the above.
        targets: (B,) int64, for "dlr_targeted".
        clean_logits: for "kl" and "mart", in the shape and dtype of ``logits``. They have a gradient as well, for
            training; an attack detaches them.
        beta: for "mart".

    Returns:
        (B,) each: ``loss``, differentiable once; ``correct``, logits.argmax(1) == y; ``margin``, z_y less the largest
        other logit. Loss and margin are float64 for float64 logits, else float32.

    Raises:
        TypeError, ValueError: an argument is not as above.
    """
    _check(logits, y, loss, targets, clean_logits, beta)
    tensors = (y,) if clean_logits is None else (y, clean_logits)
    if not has_kernel(logits) or any(type(t) not in (Tensor, torch.nn.Parameter) for t in tensors):
        return AttackLoss(*plain_loss(loss, logits, y, targets, clean_logits, beta))
    differentiable = logits.requires_grad or (clean_logits is not None and clean_logits.requires_grad)
    if differentiable and torch.is_grad_enabled():
        return AttackLoss(*_apply(logits, clean_logits, y, targets, loss, beta))
    return AttackLoss(*_kernel(logits, y, targets, clean_logits, loss, beta, False, False)[:3])


def attack_loss_and_grad(
    logits: Tensor,
    y: Tensor,
    loss: str = "ce",
    *,
    targets: Tensor | None = None,
    clean_logits: Tensor | None = None,
    beta: float = 6.0,
    clean_grad: bool = False,
) -> LossAndGradient:
    """:func:`attack_loss` with the gradients of its rows as tensors, without autograd.

    ``torch.autograd.grad(logits, x, grad)`` goes on from there: the same as that of the summed losses.

    Args:
        clean_grad: whether to return the gradient at ``clean_logits``, too.
    """
    _check(logits, y, loss, targets, clean_logits, beta)
    if clean_grad and clean_logits is None:
        raise ValueError(f"clean_grad=True with loss={loss!r}, which takes no clean_logits")
    logits, clean_logits = logits.detach(), None if clean_logits is None else clean_logits.detach()
    if has_kernel(logits):
        *found, grad, other = _kernel(logits, y, targets, clean_logits, loss, beta, True, clean_grad)
        return LossAndGradient(*found, grad, other if clean_grad else None)
    with torch.enable_grad():
        variables = [t.requires_grad_() for t in (logits, *[clean_logits] * clean_grad)]
        found = plain_loss(loss, logits, y, targets, clean_logits, beta)
        grads = torch.autograd.grad(found[0].sum(), variables)
    return LossAndGradient(*(t.detach() for t in found), grads[0], grads[1] if clean_grad else None)


def _kernel(logits, y, targets, clean_logits, loss, beta, grad, clean_grad):
    operator = torch.ops.sat_kernels.attack_loss.default._op
    try:
        return operator(logits, y, targets, clean_logits, _NUMBERS[loss], beta, grad, clean_grad)
    except RuntimeError:
        # Of what the kernel refuses, only labels have not been looked at.
        for name, labels in (("y", y), ("targets", targets)):
            if labels is not None and labels.device.type == "cpu":
                check_range(name, labels, logits.shape[1])
        raise


def check_range(name: str, labels: Tensor, classes: int) -> None:
    wrong = ((labels < 0) | (labels >= classes)).nonzero()
    if len(wrong):
        i = wrong[0].item()
        raise ValueError(f"{name}[{i}] is {labels[i].item()}: expected 0 <= {name} < {classes}, the number of classes")


class _Loss(Function):
    @staticmethod
    def forward(ctx, logits, clean_logits, y, targets, loss, beta):
        wanted, clean_wanted = ctx.needs_input_grad[:2]
        found = _kernel(logits, y, targets, clean_logits, loss, beta, wanted, clean_wanted)
        outputs = found[:3]
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)  # for outputs that have none: 10 us
        ctx.save_for_backward(logits, clean_logits)
        # Nobody else has them, and torch knows so: saved, they would look like new tensors that it may add to.
        ctx.grads = found[3] if wanted else None, found[4] if clean_wanted else None
        return outputs

    @staticmethod
    def backward(ctx, grad, *_):
        rows, clean_rows = ctx.grads
        found = _scaled(rows, grad), _scaled(clean_rows, grad)
        if torch.is_grad_enabled():
            found = (None if g is None else _Once.apply(g, grad, *ctx.saved_tensors) for g in found)
        return *found, None, None, None, None


def _scaled(rows: Tensor | None, factors: Tensor | None) -> Tensor | None:
    if rows is None or factors is None:
        return None
    # What summing the losses gives; on a GPU, looking would wait for it.
    if factors.is_cpu and factors.stride() == (0,) and factors[0].item() == 1:
        return rows
    return (rows * factors.detach()[:, None]).to(rows.dtype)


class _Once(Function):
    """A gradient that depends on the rest, but without a derivative."""

    @staticmethod
    def forward(ctx, found, *_):
        return found.view_as(found)

    @staticmethod
    def backward(ctx, _):
        raise RuntimeError(
            "attack_loss has no second derivative: expected to be differentiated once. "
            "torch.nn.functional.cross_entropy has them."
        )


_apply = super(Function, _Loss).apply


def _check(logits, y, loss, targets, clean_logits, beta) -> None:
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: expected one of {', '.join(map(repr, LOSSES))}")
    if not isinstance(logits, Tensor) or logits.dtype not in _FLOATS or logits.layout is not torch.strided:
        found = f"{logits.layout} {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits is {found}: expected a dense tensor, one of {', '.join(map(str, _FLOATS))}")
    if logits.dim() != 2 or not LOSSES[loss] <= logits.shape[1] <= MOST_CLASSES:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)}: expected (B, C) with {LOSSES[loss]} <= C <= {MOST_CLASSES} for "
            f"loss={loss!r}"
        )
    _check_labels("y", y, logits)
    if (targets is not None) != (loss == "dlr_targeted"):
        raise ValueError(f"targets is {_kind(targets)} with loss={loss!r}: expected them for 'dlr_targeted' only")
    if targets is not None:
        _check_labels("targets", targets, logits)
    if (clean_logits is not None) != (loss in ("kl", "mart")):
        raise ValueError(f"clean_logits is {_kind(clean_logits)} with loss={loss!r}: expected for 'kl' and 'mart' only")
    if clean_logits is not None:
        if not isinstance(clean_logits, Tensor) or clean_logits.dtype != logits.dtype:
            raise TypeError(
                f"clean_logits is {_kind(clean_logits)}: expected a tensor of logits' dtype, {logits.dtype}"
            )
        if clean_logits.shape != logits.shape or clean_logits.device != logits.device:
            raise ValueError(
                f"clean_logits is {tuple(clean_logits.shape)} on {clean_logits.device}: expected logits' shape and "
                f"device, {tuple(logits.shape)} on {logits.device}"
            )
    if not isinstance(beta, Real) or not 0 <= beta < float("inf"):
        raise ValueError(f"beta={beta!r}: expected a finite number >= 0")


def _check_labels(name: str, labels, logits: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"{name} is {_kind(labels)}: expected an int64 tensor")
    if labels.shape != logits.shape[:1] or labels.device != logits.device:
        raise ValueError(
            f"{name} is {tuple(labels.shape)} on {labels.device}: expected one label for each row of logits, "
            f"{tuple(logits.shape[:1])} on {logits.device}"
        )


def _kind(value) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else "None" if value is None else type(value).__name__
