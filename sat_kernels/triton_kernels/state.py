"""The state of attacks: csrc/formulas/state.h. One program for each sample; bools and gradients are integers."""

import triton
import triton.language as tl


@triton.jit
def _exceeds(a, b):
    """a > b, where any number is more than NaN."""
    return (a == a) & ((a > b) | (b != b))


@triton.jit
def _copy(to, source, size, SIZE: tl.constexpr):
    lane = tl.arange(0, SIZE).to(tl.int64)
    for begin in range(0, size, SIZE):
        mask = begin + lane < size
        tl.store(to + begin + lane, tl.load(source + begin + lane, mask=mask), mask=mask)


@triton.jit(do_not_specialize=["size"])
def keep_best(best, best_loss, success, x_adv, loss, fooled, size, SIZE: tl.constexpr):
    sample, size = tl.program_id(0).to(tl.int64), size.to(tl.int64)
    now, before = tl.load(loss + sample), tl.load(best_loss + sample)
    succeeded, fools = tl.load(success + sample), tl.load(fooled + sample)
    better = (succeeded == 0) & ((fools != 0) | _exceeds(now, before))
    if better:
        _copy(best + sample * size, x_adv + sample * size, size, SIZE)
    # All warps have decided before one changes what they decided by.
    tl.debug_barrier()
    if better:
        tl.store(best_loss + sample, now)
    tl.store(success + sample, succeeded | fools)


@triton.jit
def _moved(points, x, size, SIZE: tl.constexpr):
    """How many elements are not where they were."""
    lane = tl.arange(0, SIZE).to(tl.int64)
    count = tl.zeros((SIZE,), tl.int64)
    for begin in range(0, size, SIZE):
        mask = begin + lane < size
        differs = tl.load(points + begin + lane, mask=mask) != tl.load(x + begin + lane, mask=mask)
        count += (differs & mask).to(tl.int64)
    return tl.sum(count, 0)


@triton.jit(do_not_specialize=["size", "few_rises"])
def apgd_update(
    x_adv, grad, best, best_grad, fooling, best_loss, previous_loss, checkpoint_loss, step_size, rises, reduced,
    success, top_k, sparsity, largest_step, loss, fooled, x, size, few_rises,
    CHECKPOINT: tl.constexpr, SPARSE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    sample, size = tl.program_id(0).to(tl.int64), size.to(tl.int64)
    first = sample * size
    now, previous, top = tl.load(loss + sample), tl.load(previous_loss + sample), tl.load(best_loss + sample)
    at_checkpoint, step = tl.load(checkpoint_loss + sample), tl.load(step_size + sample)
    fools, was_reduced = tl.load(fooled + sample) != 0, tl.load(reduced + sample) != 0
    better = _exceeds(now, top)
    count = tl.load(rises + sample) + (now > previous).to(tl.int64)
    highest = tl.where(better, now, top)
    restart = better & (now != now)  # False
    moved = size
    if CHECKPOINT and SPARSE:
        if better:  # noqa: SIM108 (Triton has no conditional expressions of values)
            moved = _moved(x_adv + first, x + first, size, SIZE)
        else:
            moved = _moved(best + first, x + first, size, SIZE)
        restart = 20 * moved < 19 * tl.load(sparsity + sample)
        largest = tl.load(largest_step + sample)
        if step.dtype == tl.float64:
            shorter, least = step / 1.5, largest / 10.0
        else:
            shorter, least = tl.div_rn(step, 1.5), tl.div_rn(largest, 10.0)
        shorter = tl.where(shorter < least, least, shorter)
        step = tl.where(restart | (shorter > largest), largest, shorter)
    elif CHECKPOINT:
        restart = (count <= few_rises) | ((was_reduced == 0) & (_exceeds(highest, at_checkpoint) == 0))
        step = tl.where(restart, step * 0.5, step)
    if fools:
        _copy(fooling + first, x_adv + first, size, SIZE)
    if better:
        _copy(best + first, x_adv + first, size, SIZE)
        _copy(best_grad + first, grad + first, size, SIZE)
    elif restart:
        _copy(x_adv + first, best + first, size, SIZE)
        _copy(grad + first, best_grad + first, size, SIZE)
    # All warps have decided before one changes what they decided by.
    tl.debug_barrier()
    tl.store(previous_loss + sample, now)
    tl.store(best_loss + sample, highest)
    if fools:
        tl.store(success + sample, fools.to(tl.uint8))
    if CHECKPOINT:
        tl.store(rises + sample, count - count)
        tl.store(step_size + sample, step)
        tl.store(checkpoint_loss + sample, highest)
        tl.store(reduced + sample, restart.to(tl.uint8))
    else:
        tl.store(rises + sample, count)
    if CHECKPOINT and SPARSE:
        most = (2 * moved + 2) // 3
        tl.store(top_k + sample, tl.where(most < 1, 1, most))
        tl.store(sparsity + sample, moved)
