"""The state of an attack on the device: updated in one kernel per step, without the host looking at it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .._extension import devices
from .overlap import overlaps, overlaps_itself

_DEVICES = devices()
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def keep_best_(best: Tensor, best_loss: Tensor, success: Tensor, x_adv: Tensor, loss: Tensor, fooled: Tensor) -> None:
    """Keeps, per sample, the first point that fools the model, else the one of highest loss; in place, in one kernel.

    better = ~success & (fooled | loss > best_loss); where better, best = x_adv and best_loss = loss; success |= fooled.
    NaN is no higher loss; any number is higher than a best loss of NaN. Start with any ``best``, a ``best_loss`` of
    -inf and a ``success`` of False.

    Args:
        best: (B, ...) float32 or float64, changed in place.
        best_loss: (B,) in best's dtype, contiguous, changed in place.
        success: (B,) bool, contiguous, changed in place.
        x_adv: of best's shape, dtype and device.
        loss: (B,) floating; rounded to best's dtype.
        fooled: (B,) bool.

    Raises:
        TypeError, ValueError: an argument is not as above; nothing is changed.
    """
    _check_image("best", best)
    _check_like("x_adv", x_adv, "best", best, best.dtype)
    loss, fooled = _judged(loss, fooled, best)
    _check_numbers("best_loss", best_loss, best.dtype, best)
    _check_numbers("success", success, torch.bool, best)
    _check_apart({"best": best}, {"x_adv": x_adv})
    if _has_kernel(best, x_adv):
        _kernel("keep_best_", best, best_loss, success, x_adv.detach(), loss, fooled)
        for tensor in (best, best_loss, success):
            torch.autograd.graph.increment_version(tensor)
        return
    with torch.no_grad():
        better = ~success & (fooled | _exceeds(loss, best_loss))
        best.copy_(torch.where(_column(better, best), x_adv, best))
        best_loss.copy_(torch.where(better, loss, best_loss))
        success.logical_or_(fooled)


@dataclass
class APGDState:
    """What APGD (Croce and Hein, arXiv 2003.01690, 2103.01208) knows of each sample, as AutoAttack has it.

    ``start`` makes one, :func:`apgd_update_` changes it. (B, ...) tensors in x_adv's dtype and layout: ``best``, the
    point of highest loss, with its gradient ``best_grad``; ``fooling``, the last point that fooled the model, where
    ``success``. (B,) tensors: the highest loss ``best_loss``, the last step's ``previous_loss``, the highest loss at
    the last checkpoint ``checkpoint_loss``; ``step_size``, at most ``largest_step``; ``rises``, how often the loss rose
    since the last checkpoint; ``reduced``, whether the step size fell at it. L1 only, else None: ``top_k``, how many
    coordinates the next steps move, and ``sparsity``, how many ``best`` had moved at the last checkpoint.
    """

    best: Tensor
    best_grad: Tensor
    fooling: Tensor
    best_loss: Tensor
    previous_loss: Tensor
    checkpoint_loss: Tensor
    step_size: Tensor
    largest_step: Tensor
    rises: Tensor
    reduced: Tensor
    success: Tensor
    top_k: Tensor | None = None
    sparsity: Tensor | None = None

    @classmethod
    def start(
        cls,
        x_adv: Tensor,
        grad: Tensor,
        loss: Tensor,
        fooled: Tensor,
        *,
        eps: float | Tensor,
        norm: str = "Linf",
        top_k: float = 0.2,
    ) -> "APGDState":
        """The state at the starting point.

        Args:
            x_adv: (B, ...) float32 or float64, the starting point.
            grad: the loss's gradient there; any floating dtype.
            loss, fooled: (B,) there.
            eps: radius: a number, a 0-d tensor or one number per sample. Steps begin with 2 eps, in L1 with eps.
            norm: "Linf", "L2" or "L1".
            top_k: L1: the fraction of the coordinates that the first steps move (training: 0.05).
        """
        if norm not in ("Linf", "L2", "L1"):
            raise ValueError(f"norm={norm!r}: expected 'Linf', 'L2' or 'L1'")
        if not 0 < top_k <= 1:
            raise ValueError(f"top_k={top_k}: expected a fraction in (0, 1]")
        _check_image("x_adv", x_adv)
        _check_like("grad", grad, "x_adv", x_adv)
        loss, fooled = _judged(loss, fooled, x_adv)
        batch, size = x_adv.shape[0], x_adv[:1].numel()
        eps = torch.as_tensor(eps, dtype=x_adv.dtype, device=x_adv.device).detach()
        if eps.numel() not in (1, batch) or (eps.dim() > 0 and eps.shape[0] not in (1, batch)):
            raise ValueError(f"eps has shape {tuple(eps.shape)}: expected a number or one per sample, ({batch},)")
        largest = (eps if norm == "L1" else 2 * eps).reshape(-1).expand(batch).clone()
        x_adv, grad = x_adv.detach(), grad.detach()

        def integers(value: int) -> Tensor:
            return torch.full((batch,), value, dtype=torch.int64, device=x_adv.device)

        return cls(
            best=x_adv.clone(),
            best_grad=grad.clone(),
            fooling=x_adv.clone(),
            best_loss=loss.clone(),
            previous_loss=loss.clone(),
            checkpoint_loss=loss.clone(),
            step_size=largest.clone(),
            largest_step=largest,
            rises=integers(0),
            # As AutoAttack has it: at the first checkpoint only the number of rises counts.
            reduced=torch.ones(batch, dtype=torch.bool, device=x_adv.device),
            success=fooled.clone(),
            # Of AutoAttack's sorted gradients those from place (1 - top_k) size on.
            top_k=integers(max(1, size - int((1 - top_k) * size))) if norm == "L1" else None,
            sparsity=integers(size) if norm == "L1" else None,
        )

    def result(self) -> Tensor:
        """Per sample the last point that fooled the model, else the one of highest loss."""
        return torch.where(_column(self.success, self.best), self.fooling, self.best)


def apgd_checkpoints(steps: int, norm: str = "Linf") -> tuple[int, ...]:
    """After how many steps APGD looks at its progress: AutoAttack's 22, 41, 57, 70... of 100; in L1 every 4 %."""
    interval = max(int((0.04 if norm == "L1" else 0.22) * steps), 1)
    shorter, least = (0, interval) if norm == "L1" else (max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    found = []
    at = interval
    while at <= steps:
        found.append(at)
        interval = max(interval - shorter, least)
        at += interval
    return tuple(found)


def apgd_update_(
    state: APGDState,
    x_adv: Tensor,
    grad: Tensor,
    loss: Tensor,
    fooled: Tensor,
    *,
    x: Tensor | None = None,
    checkpoint: int = 0,
    rho: float = 0.75,
) -> None:
    """What AutoAttack's APGD does after a step, in place and in one kernel: no value goes to the host.

    The point is kept where its loss is the highest so far, and where it fools the model. At a checkpoint the step size
    is halved where the loss rose in at most ``rho`` of the steps since the last one, or where neither step size nor
    highest loss had changed since; there x_adv and grad become the best ones. In L1 the next steps move two thirds as
    many coordinates as the best point has moved; where those are fewer than 95 % of what they were, the step size
    becomes eps again and the sample goes on from its best point; elsewhere it is divided by 1.5, down to eps / 10.

    A loss of NaN is never the highest, and no rise. AutoAttack compares the first step's loss with 0, the paper with
    the starting point's, as here; ``state.previous_loss.zero_()`` at the start gives the former.

    Args:
        state: changed in place.
        x_adv: (B, ...) the point after the step, in the state's dtype; changed at checkpoints.
        grad: the gradient there, in the dtype of the state's; changed at checkpoints.
        loss, fooled: (B,) there: floating, which is rounded to x_adv's dtype, and bool.
        x: the clean input, for L1, else not needed.
        checkpoint: how many steps have been made since the last checkpoint, if this is one; else 0.
        rho: see above.

    Raises:
        TypeError, ValueError: an argument is not as above; nothing is changed.
    """
    sparse = state.top_k is not None
    _check_image("x_adv", x_adv)
    _check_like("state.best", state.best, "x_adv", x_adv, x_adv.dtype)
    _check_like("grad", grad, "x_adv", x_adv, state.best_grad.dtype)
    loss, fooled = _judged(loss, fooled, x_adv)
    if checkpoint < 0:
        raise ValueError(f"checkpoint={checkpoint}: expected the number of steps since the last, or 0")
    if sparse and x is None:
        raise ValueError("x=None: expected the clean input, from which L1's sparsity is counted")
    if sparse:
        _check_like("x", x, "x_adv", x_adv, x_adv.dtype)
    images = {"x_adv": x_adv, "grad": grad, "state.best": state.best}
    images |= {"state.best_grad": state.best_grad, "state.fooling": state.fooling}
    _check_apart(images, {"x": x} if sparse else {})
    few_rises = int(rho * checkpoint)
    if _has_kernel(*images.values()):
        changed = (
            x_adv, grad, state.best, state.best_grad, state.fooling, state.best_loss, state.previous_loss,
            state.checkpoint_loss, state.step_size, state.rises, state.reduced, state.success, state.top_k,
            state.sparsity,
        )  # fmt: skip
        _kernel(
            "apgd_update_",
            *changed,
            state.largest_step,
            loss,
            fooled,
            x.detach() if sparse else None,
            checkpoint,
            few_rises,
        )
        for tensor in changed:
            if tensor is not None:
                torch.autograd.graph.increment_version(tensor)
        return
    with torch.no_grad():
        _reference(state, x_adv, grad, loss, fooled, x, checkpoint, few_rises)


def _kernel(name: str, *arguments) -> None:
    getattr(torch.ops.sat_kernels, name).default(*arguments)


def _reference(s: APGDState, x_adv, grad, loss, fooled, x, checkpoint: int, few_rises: int) -> None:
    """The update in plain PyTorch."""
    s.success.logical_or_(fooled)
    s.fooling.copy_(torch.where(_column(fooled, x_adv), x_adv, s.fooling))
    better = _exceeds(loss, s.best_loss)
    s.best.copy_(torch.where(_column(better, x_adv), x_adv, s.best))
    s.best_grad.copy_(torch.where(_column(better, x_adv), grad, s.best_grad))
    s.best_loss.copy_(torch.where(better, loss, s.best_loss))
    s.rises.add_(loss > s.previous_loss)
    s.previous_loss.copy_(loss)
    if checkpoint == 0:
        return
    if s.top_k is not None:
        moved = (s.best != x).reshape(x.shape[0], -1).sum(1)
        restart = 20 * moved < 19 * s.sparsity
        shorter = torch.maximum(s.step_size / 1.5, s.largest_step / 10).minimum(s.largest_step)
        s.step_size.copy_(torch.where(restart, s.largest_step, shorter))
        s.top_k.copy_(((2 * moved + 2) // 3).clamp(min=1))
        s.sparsity.copy_(moved)
    else:
        restart = (s.rises <= few_rises) | (~s.reduced & ~_exceeds(s.best_loss, s.checkpoint_loss))
        s.step_size.copy_(torch.where(restart, s.step_size / 2, s.step_size))
    s.checkpoint_loss.copy_(s.best_loss)
    s.reduced.copy_(restart)
    s.rises.zero_()
    x_adv.copy_(torch.where(_column(restart, x_adv), s.best, x_adv))
    grad.copy_(torch.where(_column(restart, x_adv), s.best_grad, grad))


def _exceeds(a: Tensor, b: Tensor) -> Tensor:
    """a > b, where any number is more than NaN."""
    return ~(a <= b) & ~a.isnan()


def _column(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(-1, *(1,) * (x.dim() - 1))


def _has_kernel(*tensors: Tensor) -> bool:
    return all(t.device.type in _DEVICES and type(t) is Tensor and not t.is_neg() for t in tensors)


def _judged(loss: Tensor, fooled: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
    for name, tensor in (("loss", loss), ("fooled", fooled)):
        if not isinstance(tensor, Tensor) or tensor.shape != x_adv.shape[:1] or tensor.device != x_adv.device:
            found = f"{tuple(tensor.shape)} on {tensor.device}" if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{name} is {found}: expected a ({x_adv.shape[0]},) tensor on {x_adv.device}")
    if loss.dtype not in _FLOATS:
        raise TypeError(f"loss is {loss.dtype}: expected a floating tensor")
    if fooled.dtype != torch.bool:
        raise TypeError(f"fooled is {fooled.dtype}: expected torch.bool")
    return loss.detach().to(x_adv.dtype).contiguous(), fooled.contiguous()


def _check_image(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}: expected a tensor")
    if tensor.dtype not in _FLOATS[:2]:
        raise TypeError(f"{name} is {tensor.dtype}: expected torch.float32 or torch.float64")
    if tensor.dim() < 1 or tensor.layout is not torch.strided:
        raise ValueError(f"{name} is a {tensor.layout} tensor of shape {tuple(tensor.shape)}: expected dense (B, ...)")


def _check_like(name: str, tensor: Tensor, reference_name: str, reference: Tensor, dtype: torch.dtype | None = None):
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}: expected a tensor")
    if tensor.shape != reference.shape or tensor.device != reference.device:
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} on {tensor.device}: expected {reference_name}'s shape and device, "
            f"{tuple(reference.shape)} on {reference.device}"
        )
    if tensor.dtype != dtype if dtype is not None else tensor.dtype not in _FLOATS:
        raise TypeError(f"{name} is {tensor.dtype}: expected {dtype or 'a floating tensor'}")


def _check_numbers(name: str, tensor: Tensor, dtype: torch.dtype, image: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name} is {found}: expected {dtype}")
    if tensor.shape != image.shape[:1] or tensor.device != image.device or not tensor.is_contiguous():
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} on {tensor.device}, strides {tensor.stride()}: expected contiguous "
            f"({image.shape[0]},) on {image.device}"
        )


def _check_apart(written: dict[str, Tensor], read: dict[str, Tensor]) -> None:
    """That what is written shares no memory with anything."""
    names = list(written)
    for i, name in enumerate(names):
        tensor = written[name]
        if tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} requires grad and is written: expected {name}.detach() or no_grad()")
        if overlaps_itself(tensor):
            raise ValueError(f"{name} overlaps itself (strides {tensor.stride()}): expected memory per element")
        others = {k: written[k] for k in names[i + 1 :]} | read
        for other in others:
            if overlaps(tensor, others[other]):
                raise ValueError(f"{other} shares memory with {name}, which is written: expected another tensor")
