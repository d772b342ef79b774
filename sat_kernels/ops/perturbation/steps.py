"""The steps of attacks: checks, choice between kernel and plain PyTorch."""

import functools

import torch
from torch import Tensor

from ..._extension import devices
from . import reference, sizes
from .checks import check_memory, check_out, check_tensors, checked_active, checked_mask

_DEVICES = devices()
_TYPES = (Tensor, torch.nn.Parameter)
NORMS = ("Linf", "L2", "L1")
_bump_version = torch.autograd.graph.increment_version


def pgd_step_(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    norm: str = "Linf",
    clip_min: float = 0.0,
    clip_max: float = 1.0,
    targeted: bool = False,
    top_k: int | float | Tensor | None = None,
    mask: Tensor | None = None,
    active: Tensor | None = None,
    out: Tensor | None = None,
    mean: float | Tensor | None = None,
    std: float | Tensor | None = None,
) -> Tensor:
    """One step of projected gradient ascent (Madry et al., arXiv 1706.06083), in place and in one kernel.

    x_adv <- x_adv + alpha * direction(grad), projected to the ball of radius ``eps`` around ``x``, then to the box. The
    direction is the gradient's sign (Linf), the gradient over its norm (L2), or the signs of its ``top_k`` largest
    elements that the box lets move, over their number (L1: Tramer and Boneh's SLIDE, arXiv 1904.13000, and Croce and
    Hein's projection to the intersection of ball and box, arXiv 2103.01208).

    The result is inside both in exact arithmetic, not just up to rounding: results are rounded towards x, ``eps`` and
    ``clip_max`` down and ``clip_min`` up to x's dtype. Where the gradient is NaN or 0 there is no step; an infinite one
    steps like any other (Linf), or as if the finite ones were 0 (L2). NaN in ``x_adv`` stays NaN. Where ``x`` is
    outside the box, the box wins.

    Args:
        x_adv: (B, ...) float32 or float64, changed in place. Any strides, no overlapping memory.
        grad: gradient of the loss at ``x_adv``; same shape and device, any floating dtype. None: only the projection.
        x: the clean input; same shape, dtype and device as ``x_adv``.
        eps: radius >= 0, in the units of ``x`` and in the norm. A number; a tensor of one (0-d), which is read on its
            device, so that a captured CUDA graph follows its changes; one per sample, (B,) or (B, 1, ...); for Linf
            also per channel, (C, 1, ...), (1, C, 1, ...) or (B, C, 1, ...).
        alpha: step size; negative to descend; as ``eps``.
        norm: "Linf", "L2" or "L1".
        clip_min, clip_max: the box.
        targeted: descend.
        top_k: L1 only: how many elements move. A number >= 1, a fraction of a sample's elements, or a (B,) integer
            tensor; by default 1 %.
        mask: bool, broadcastable to ``x``: where False no step is made. Read as it is if it has x_adv's shape and
            layout, else copied.
        active: (B,) bool: other samples are left as they are, in ``out``, too.
        out: the network's input, written by the same kernel: (x_adv - mean) / std in float32, rounded once to out's
            float32, bfloat16 or float16. x_adv's shape; contiguous or channels_last.
        mean, std: in the units of ``x``: numbers, or one for each channel, as a sequence or a tensor.

    Returns:
        ``x_adv``.

    Raises:
        TypeError, ValueError: an argument is not as above; nothing is changed. Values of CUDA tensors are not looked
            at, since that would wait for the device.
    """
    grads = {} if grad is None else {"grad": grad}
    given = _Step(x_adv, x, norm, grads, {}, clip_min, clip_max, mask, active, out, mean, std)
    given.set_sizes(eps, alpha, targeted)
    top_k = _top_k(top_k, norm, x_adv)
    if given.fused:
        _operator(_PGD[norm])(
            x_adv, grad, x, given.eps, given.alpha, given.eps_of, given.alpha_of, *given.rest(), *top_k
        )
        return given.changed_by_kernel()

    def plain(eps, alpha):
        if norm == "Linf":
            return reference.pgd_step(x_adv, grad, x, eps, alpha, *given.box, given.mask)
        from . import reference_norms

        step = reference_norms.pgd_step_l2 if norm == "L2" else reference_norms.pgd_step_l1
        return step(x_adv, grad, x, eps, alpha, *given.box, given.mask, *_one_of(top_k, x_adv))

    return given.changed_by(plain)


def project_(
    x_adv: Tensor,
    x: Tensor,
    *,
    eps: float | Tensor,
    norm: str = "Linf",
    clip_min: float = 0.0,
    clip_max: float = 1.0,
    active: Tensor | None = None,
) -> Tensor:
    """Moves ``x_adv`` into the ball of radius ``eps`` around ``x`` and the box, in place and in one kernel.

    The nearest point of both for Linf and L1 (Croce and Hein, arXiv 2103.01208); for L2, of the ball, then of the box.
    Feasible in exact arithmetic. Arguments and errors as those of :func:`pgd_step_`. Returns ``x_adv``.
    """
    return pgd_step_(x_adv, None, x, eps=eps, alpha=0.0, norm=norm, clip_min=clip_min, clip_max=clip_max, active=active)


def momentum_step_(
    x_adv: Tensor,
    momentum: Tensor,
    grad: Tensor,
    x: Tensor,
    *,
    eps: float | Tensor,
    alpha: float | Tensor,
    decay: float = 1.0,
    clip_min: float = 0.0,
    clip_max: float = 1.0,
    targeted: bool = False,
    mask: Tensor | None = None,
    active: Tensor | None = None,
    out: Tensor | None = None,
    mean: float | Tensor | None = None,
    std: float | Tensor | None = None,
) -> Tensor:
    """One step of MI-FGSM (Dong et al., arXiv 1710.06081) in the Linf ball, in place and in one kernel.

    momentum <- decay * momentum + grad / mean(|grad|), the mean over all elements of a sample; then the Linf step along
    the momentum's sign. A gradient of zeros adds nothing, nor do elements that are NaN; of one with infinite elements,
    those count as +-1 and others as 0.

    Args:
        momentum: same shape, dtype and device as ``x_adv``, changed in place; zeros before the first step.
        decay: of the momentum.
        Others: as those of :func:`pgd_step_`. ``mask`` does not keep the momentum from changing; ``active`` does.

    Returns:
        ``x_adv``.

    Raises:
        TypeError, ValueError: as :func:`pgd_step_`.
    """
    given = _Step(
        x_adv, x, "Linf", {"grad": grad}, {"momentum": momentum}, clip_min, clip_max, mask, active, out, mean, std
    )
    _check_batch(x_adv)
    given.set_sizes(eps, alpha, targeted)
    decay = sizes.number("decay", decay)
    if given.fused:
        _operator("momentum_step_linf_")(
            x_adv, momentum, grad, x, given.eps, given.alpha, decay, given.eps_of, given.alpha_of, *given.rest()
        )
        return given.changed_by_kernel()

    def plain(eps, alpha):
        new = reference.next_momentum(momentum, grad, decay)
        moved = reference.pgd_step(x_adv, new, x, eps, alpha, *given.box, given.mask)
        momentum.copy_(given.where_active(new, momentum))
        return moved

    return given.changed_by(plain)


def apgd_step_(
    x_adv: Tensor,
    x_prev: Tensor | None,
    grad: Tensor,
    x: Tensor,
    *,
    eps: float | Tensor,
    step_size: float | Tensor,
    norm: str = "Linf",
    first: bool = False,
    top_k: int | float | Tensor | None = None,
    clip_min: float = 0.0,
    clip_max: float = 1.0,
    active: Tensor | None = None,
    out: Tensor | None = None,
    mean: float | Tensor | None = None,
    std: float | Tensor | None = None,
) -> Tensor:
    """One step of APGD (Croce and Hein, arXiv 2003.01690; L1: 2103.01208), in place and in one kernel.

    z = P(x_adv + step_size * direction(grad)) and x_adv <- P(x_adv + 0.75 (z - x_adv) + 0.25 (x_adv - x_prev)), where
    P projects to ball and box; the ``first`` step goes to z. x_prev <- the old x_adv. L1: a sparse step, without
    momentum.

    Args:
        x_prev: the point before ``x_adv``; same shape, dtype and device, changed in place. L1 leaves it alone: may be
            None.
        step_size: a number, 0-d, or one per sample, in the units of ``x``.
        first: whether there is no point before.
        Others: as those of :func:`pgd_step_`, which is where results are feasible in the same sense.

    Returns:
        ``x_adv``.

    Raises:
        TypeError, ValueError: as :func:`pgd_step_`.
    """
    changed = {} if norm == "L1" else {"x_prev": x_prev}
    given = _Step(x_adv, x, norm, {"grad": grad}, changed, clip_min, clip_max, None, active, out, mean, std)
    _check_batch(x_adv)
    given.eps, given.eps_of = sizes.radius("eps", eps, x_adv, norm)
    number, of = sizes.length("step_size", step_size, x_adv, "L2")  # for every norm one per sample
    steps = x_adv.new_full((1, 1), number) if of is None else of
    top_k = _top_k(top_k, norm, x_adv)
    if given.fused:
        operator = _operator(_APGD[norm])
        rest = (*given.box, given.active, given.out, given.mean, given.std)
        if norm == "L1":
            operator(x_adv, grad, x, given.eps, given.eps_of, steps, _as_tensor(top_k, x_adv), *rest)
        else:
            operator(x_adv, x_prev, grad, x, given.eps, given.eps_of, steps, bool(first), *rest)
        return given.changed_by_kernel()
    given.alpha, given.alpha_of = 0.0, steps

    def plain(eps, steps):
        if norm == "Linf":
            moved = reference.apgd_step(x_adv, x_prev, grad, x, eps, steps, first, *given.box)
        else:
            from . import reference_norms

            if norm == "L1":
                return reference_norms.apgd_step_l1(x_adv, grad, x, eps, steps, *_one_of(top_k, x_adv), *given.box)
            moved = reference_norms.apgd_step_l2(x_adv, x_prev, grad, x, eps, steps, first, *given.box)
        x_prev.copy_(given.where_active(x_adv, x_prev))
        return moved

    return given.changed_by(plain)


_PGD = {norm: f"pgd_step_{norm.lower()}_" for norm in NORMS}
_APGD = {norm: f"apgd_step_{norm.lower()}_" for norm in NORMS}


@functools.cache
def _operator(name: str):
    """A raw operator; its ``_op`` skips a Python frame."""
    return getattr(torch.ops.sat_kernels, name).default._op


class _Step:
    """What all steps take, checked."""

    def __init__(self, x_adv, x, norm, grads, changed, clip_min, clip_max, mask, active, out, mean, std):
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r}: expected 'Linf', 'L2' or 'L1'")
        check_tensors(x_adv, x, grads, changed)
        self.x_adv, self.norm, self.out = x_adv, norm, out
        self.box = sizes.box(clip_min, clip_max, x_adv.dtype)
        self.mask = None if mask is None else checked_mask(mask, x_adv)
        self.active = None if active is None else checked_active(active, x_adv)
        self.written = {"x_adv": x_adv, **changed}
        read = {**grads, "x": x}
        if mask is not None:
            read["mask"] = mask
        if norm != "Linf":
            _check_batch(x_adv)
        self.mean = self.std = None
        if out is not None:
            check_out(out, x_adv)
            self.written["out"] = out
            self.mean, self.std = sizes.per_channel("mean", mean, x_adv), sizes.per_channel("std", std, x_adv)
        elif mean is not None or std is not None:
            raise ValueError(f"mean={mean}, std={std} without out: expected the tensor that they are for")
        check_memory(self.written, read)
        self.fused = x_adv.device.type in _DEVICES
        for tensor in self.written.values():
            self.fused = self.fused and type(tensor) in _TYPES and not tensor.is_neg()

    def set_sizes(self, eps, alpha, targeted: bool) -> None:
        self.eps, self.eps_of = sizes.radius("eps", eps, self.x_adv, self.norm)
        self.alpha, self.alpha_of = sizes.length("alpha", alpha, self.x_adv, self.norm)
        if targeted:
            self.alpha, self.alpha_of = -self.alpha, None if self.alpha_of is None else -self.alpha_of

    def rest(self) -> tuple:
        return (*self.box, self.mask, self.active, self.out, self.mean, self.std)

    def changed_by_kernel(self) -> Tensor:
        for tensor in self.written.values():
            _bump_version(tensor)
        return self.x_adv

    def changed_by(self, plain) -> Tensor:
        """By plain(eps, alpha) instead, which returns the new x_adv."""
        x_adv = self.x_adv
        with torch.no_grad():
            x_adv.copy_(
                self.where_active(
                    plain(sizes.spread(self.eps, self.eps_of, x_adv), sizes.spread(self.alpha, self.alpha_of, x_adv)),
                    x_adv,
                )
            )
            if self.out is not None:
                shape = (-1, *(1,) * (x_adv.dim() - 2))
                found = x_adv.to(torch.float32)
                found = found if self.mean is None else found - self.mean.view(shape)
                found = found if self.std is None else found / self.std.view(shape)
                self.out.copy_(self.where_active(found.to(self.out.dtype), self.out))
        return x_adv

    def where_active(self, new: Tensor, old: Tensor) -> Tensor:
        if self.active is None:
            return new
        return torch.where(self.active.view(-1, *(1,) * (old.dim() - 1)), new, old)


def _check_batch(x_adv: Tensor) -> None:
    if x_adv.dim() == 0:
        raise ValueError("x_adv has no dimensions: expected (B, ...)")


def _top_k(top_k, norm: str, x_adv: Tensor) -> tuple:
    if norm == "L1":
        return sizes.sparse(top_k, x_adv)
    if top_k is not None:
        raise ValueError(f"top_k={top_k} with norm={norm!r}: expected it with 'L1' only")
    return ()


def _one_of(top_k: tuple, x_adv: Tensor) -> tuple:
    """For plain PyTorch: nothing, or (B or 1, 1) numbers."""
    return (_as_tensor(top_k, x_adv),) if top_k else ()


def _as_tensor(top_k: tuple, x_adv: Tensor) -> Tensor:
    number, of = top_k
    return x_adv.new_full((1, 1), number, dtype=torch.int64) if of is None else of
