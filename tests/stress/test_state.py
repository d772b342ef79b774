"""APGD's state on random sequences of losses: AutoAttack's rules in plain Python."""

import math

import apgd
import torch
from hypothesis import given
from hypothesis import strategies as st
from stress import INTERPRETED, cases, not_on_the_interpreter, run_interpreted

from sat_kernels.ops import keep_best_


@st.composite
def attacks(draw, most_steps):
    steps, batch = draw(st.integers(1, most_steps)), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = torch.Generator().manual_seed(seed)
    # Few different losses, so that equal ones are common.
    values = [0.0, 1.0, 2.0, 3.0, 4.0, -1.0, math.nan, math.inf, -math.inf][: draw(st.sampled_from([6, 9]))]
    losses = torch.tensor(values, dtype=dtype)[torch.randint(len(values), (steps + 1, batch), generator=generator)]
    if draw(st.booleans()):  # rising ones, which random ones are not
        losses = losses.nan_to_num(0, 0, 0).abs().cumsum(0)
    fooled = torch.rand(losses.shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 1.0]))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    eps = draw(st.sampled_from([8 / 255, 0.5, 12.0]))
    if draw(st.booleans()):
        eps = eps * torch.rand(batch, generator=generator, dtype=dtype)
    grad_dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    lay_out = draw(st.sampled_from([lambda t: t, lambda t: t.mT.contiguous().mT if t.dim() > 2 else t]))
    norm = draw(st.sampled_from(["Linf", "L2", "L1"]))
    return losses, fooled, norm, eps, shape, seed, lay_out, grad_dtype


def check(losses, fooled, norm, eps, shape, seed, lay_out, grad_dtype):
    apgd.run(losses, fooled, norm, eps, shape, seed, lay_out=lay_out, grad_dtype=grad_dtype)


@given(attacks(8))
@cases("interpreted" if INTERPRETED else "cpu")
def test_on_the_cpu(case):
    check(*case)


@not_on_the_interpreter
def test_interpreted():
    run_interpreted(__file__, "cpu or best")


@not_on_the_interpreter
@given(attacks(12))
@cases("emulated")
def test_emulated(starts_and_state, case):
    check(*case)


def best_of(points, losses, fooled):
    """The first that fools the model, else the first of the highest loss; what has no loss is the lowest."""
    best, best_loss = 0, losses[0]
    for k, (loss, fools) in enumerate(zip(losses, fooled, strict=True)):
        if fools:
            return points[k], True
        if loss > best_loss or (math.isnan(best_loss) and not math.isnan(loss)):
            best, best_loss = k, loss
    return points[best], False


@given(attacks(8))
@cases("interpreted" if INTERPRETED else "cpu")
def test_keep_best(case):
    losses, fooled, _, _, shape, seed, lay_out, _ = case
    generator = torch.Generator().manual_seed(seed)
    points = [torch.rand(losses.shape[1], *shape, generator=generator).to(losses.dtype) for _ in losses]
    best, success = lay_out(points[0].clone()), fooled[0].clone()
    best_loss = losses[0].clone()
    for k, point in enumerate(points):
        keep_best_(best, best_loss, success, lay_out(point), losses[k], fooled[k])
    for b in range(losses.shape[1]):
        expected, succeeds = best_of([p[b] for p in points], losses[:, b].tolist(), fooled[:, b].tolist())
        assert torch.equal(best[b], expected)
        assert success[b].item() == succeeds
