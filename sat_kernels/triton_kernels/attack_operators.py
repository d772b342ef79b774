"""Random starts and the state of attacks as csrc/start_operators.h and csrc/state_operators.h have them."""

import torch
import triton
from torch import Tensor

from . import operators, starts, state
from .operators import bits, check_like, is_dense, laid_out_as

NOISES = ("none", "uniform", "normal", "laplace")
RADII = ("bounded", "surface", "uniform", "volume", "free")
NORMS = ("Linf", "L2", "L1")
OPTIONS = {"num_warps": operators.WARPS, "enable_fp_fusion": False}


def check_numbers(name: str, t: Tensor, dtype: torch.dtype, counts: tuple[int, ...], image: Tensor) -> None:
    if t.numel() not in counts or not t.is_contiguous() or t.dtype != dtype or t.device != image.device:
        raise RuntimeError(f"{name}: expected {counts[-1]} contiguous {dtype} numbers on the image's device")


def check_image(name: str, t: Tensor) -> None:
    if t.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(f"{name}: expected float32 or float64")
    if t.dim() < 1:
        raise RuntimeError(f"{name}: expected (B, ...)")


def adjacent_channels(t: Tensor) -> int:
    """The channels that are next to each other, or 1 if samples are in their logical order, or 0."""
    if t.is_contiguous():
        return 1
    order = [0, *range(2, t.dim()), 1]
    return t.shape[1] if t.dim() > 2 and t.permute(order).is_contiguous() else 0


def random_start(
    x: Tensor, noise: int, radius: int, norm: int, scale: float, eps: float, scale_of: Tensor | None,
    eps_of: Tensor | None, clip_min: float, clip_max: float, seed: int, seed_of: Tensor | None, restart: int,
    restart_of: Tensor | None, sample_ids: Tensor | None,
) -> Tensor:  # fmt: skip
    check_image("x", x)
    result = torch.empty_like(x)
    if x.numel() == 0:
        return result
    batch, size = x.shape[0], x[0].numel()
    if size >= 2**32:
        raise RuntimeError("x: expected samples of fewer than 2^32 elements")
    for name, t, dtype, counts in (
        ("scale", scale_of, x.dtype, (1, batch)),
        ("eps", eps_of, x.dtype, (1, batch)),
        ("seed", seed_of, torch.int64, (1,)),
        ("restart", restart_of, torch.int64, (1,)),
        ("sample_ids", sample_ids, torch.int64, (batch,)),
    ):
        if t is not None:
            check_numbers(name, t, dtype, counts, x)
    channels = adjacent_channels(result) if is_dense(result) else 0
    x_adv = result if channels else torch.empty_like(x, memory_format=torch.contiguous_format)
    length = RADII[radius] != "free" and (NORMS[norm] != "Linf" or RADII[radius] != "bounded")
    chunks = 1 if length else min(triton.cdiv(size, operators.TILE), 2048)

    def sized(number, of):
        if of is None:
            return bits(number, x.dtype), "number"
        return of, "one" if of.numel() == 1 else "each"

    (scale, scale_kind), (eps, eps_kind) = sized(scale, scale_of), sized(eps, eps_of)
    with torch.cuda.device_of(x):
        starts.start[(batch * chunks,)](
            laid_out_as(x_adv, x), x_adv, scale, eps, bits(clip_min, x.dtype), bits(clip_max, x.dtype),
            seed if seed_of is None else seed_of, restart if restart_of is None else restart_of, sample_ids, size,
            max(channels, 1), chunks, NOISE=NOISES[noise], RADIUS=RADII[radius], NORM=NORMS[norm],
            SCALE_OF=scale_kind, EPS_OF=eps_kind, SEED_OF=seed_of is not None, RESTART_OF=restart_of is not None,
            CHANNELS=channels > 1, SIZE=operators.TILE, **OPTIONS,
        )  # fmt: skip
    if x_adv is not result:
        result.copy_(x_adv)
    return result


def samples_apart(t: Tensor) -> Tensor:
    """``t``, or a copy in a layout that the kernels take: dense, sample after sample."""
    apart = is_dense(t) and (t.shape[0] == 1 or t.numel() == 0 or t.stride(0) == t[0].numel())
    return t if apart else t.contiguous()


def bytes_of(t: Tensor) -> Tensor:
    return t.view(torch.uint8)


def as_integers(t: Tensor) -> Tensor:
    return t.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()])


def keep_best_(
    best: Tensor, best_loss: Tensor, success: Tensor, x_adv: Tensor, loss: Tensor, fooled: Tensor
) -> None:  # fmt: skip
    check_image("x_adv", x_adv)
    check_like("best", best, "x_adv", x_adv)
    if best.dtype != x_adv.dtype:
        raise RuntimeError("best differs in dtype from x_adv: expected the same")
    batch = (x_adv.shape[0],)
    for name, t, dtype in (
        ("best_loss", best_loss, x_adv.dtype), ("loss", loss, x_adv.dtype), ("success", success, torch.bool),
        ("fooled", fooled, torch.bool),
    ):  # fmt: skip
        check_numbers(name, t, dtype, batch, x_adv)
    if x_adv.shape[0] == 0:
        return
    target = samples_apart(best)
    with torch.cuda.device_of(best):
        state.keep_best[batch](
            target, best_loss, bytes_of(success), laid_out_as(target, x_adv), loss, bytes_of(fooled),
            target.numel() // batch[0], SIZE=operators.TILE, **OPTIONS,
        )  # fmt: skip
    if target is not best:
        best.copy_(target)


def apgd_update_(
    x_adv: Tensor, grad: Tensor, best: Tensor, best_grad: Tensor, fooling: Tensor, best_loss: Tensor,
    previous_loss: Tensor, checkpoint_loss: Tensor, step_size: Tensor, rises: Tensor, reduced: Tensor, success: Tensor,
    top_k: Tensor | None, sparsity: Tensor | None, largest_step: Tensor, loss: Tensor, fooled: Tensor,
    x: Tensor | None, checkpoint: int, few_rises: int,
) -> None:  # fmt: skip
    check_image("x_adv", x_adv)
    batch, sparse = (x_adv.shape[0],), x is not None
    if (top_k is not None) != sparse or (sparsity is not None) != sparse:
        raise RuntimeError("x, top_k, sparsity: expected all of them, for L1, or none")
    images = {"best": best, "fooling": fooling} | ({"x": x} if sparse else {})
    for name, t in (images | {"grad": grad, "best_grad": best_grad}).items():
        check_like(name, t, "x_adv", x_adv)
    if any(t.dtype != x_adv.dtype for t in images.values()) or grad.dtype != best_grad.dtype:
        raise RuntimeError("best, fooling, x differ in dtype from x_adv, or grad from the state's: expected the same")
    numbers = {
        "best_loss": best_loss, "previous_loss": previous_loss, "checkpoint_loss": checkpoint_loss,
        "step_size": step_size, "largest_step": largest_step, "loss": loss,
    }  # fmt: skip
    integers = {"rises": rises} | ({"top_k": top_k, "sparsity": sparsity} if sparse else {})
    flags = {"reduced": reduced, "success": success, "fooled": fooled}
    for dtype, tensors in ((x_adv.dtype, numbers), (torch.int64, integers), (torch.bool, flags)):
        for name, t in tensors.items():
            check_numbers(name, t, dtype, batch, x_adv)
    if x_adv.shape[0] == 0:
        return
    target = samples_apart(x_adv)
    given = (grad, best, best_grad, fooling)
    taken = tuple(laid_out_as(target, t) for t in given)
    with torch.cuda.device_of(x_adv):
        state.apgd_update[batch](
            target, as_integers(taken[0]), taken[1], as_integers(taken[2]), taken[3], best_loss, previous_loss,
            checkpoint_loss, step_size, rises, bytes_of(reduced), bytes_of(success), top_k, sparsity, largest_step,
            loss, bytes_of(fooled), laid_out_as(target, x) if sparse else None, target.numel() // batch[0], few_rises,
            CHECKPOINT=checkpoint != 0, SPARSE=sparse, SIZE=operators.TILE, **OPTIONS,
        )  # fmt: skip
    for original, copy in ((x_adv, target), *zip(given, taken, strict=True)):
        if copy is not original:
            original.copy_(copy)
