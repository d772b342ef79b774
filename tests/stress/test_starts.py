"""Random starts on random cases: in ball and box in exact arithmetic, and as the plain path has them."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from stress import INTERPRETED, cases, not_on_the_interpreter, run_interpreted

from sat_kernels.ops import random_start
from sat_kernels.testing import check_feasible

INITS = ("uniform", "uniform_ball", "radial", "sphere", "normal", "normal(0.3)", "zero")
STARTS = [(norm, init) for norm in ("Linf", "L2") for init in INITS]
STARTS += [("L1", init) for init in ("uniform_ball", "radial", "sphere", "zero")]


class Subclass(torch.Tensor):
    """Kernels are for plain tensors: a subclass takes the reference path."""


@st.composite
def layouts(draw, dims):
    """Other strides for a tensor: another order in memory, or every second element of a larger one."""
    order = draw(st.permutations(range(dims)))
    gap, last = draw(st.booleans()), draw(st.booleans())

    def lay_out(x):
        if last and dims == 4:
            return x.contiguous(memory_format=torch.channels_last)
        x = x.permute(order).contiguous().permute([order.index(d) for d in range(dims)])
        return torch.stack([x, x], -1)[..., 1] if gap else x

    return lay_out


@st.composite
def starts(draw):
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    norm, init = draw(st.sampled_from(STARTS))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    seed = draw(st.integers(-(2**63), 2**63 - 1))
    low, high = draw(st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-math.inf, math.inf), (0.1, 0.3)]))
    eps = draw(st.sampled_from([8 / 255, 0.031, 0.3, 0.0, 1e-12, 1e-40, 1e-310, 5e-324, 3.0, 1e30]))
    generator = torch.Generator().manual_seed(seed % 2**32)
    span = 1.0 if math.isinf(high) else high - low
    x = torch.rand(shape, generator=generator, dtype=dtype) * span + (low if math.isfinite(low) else 0.0)
    special = draw(st.sampled_from([0.0, -0.0, 1.0, 0.7, 0.25, 1e-40, low, high]))
    if low <= special <= high and math.isfinite(special):
        x[torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = special
    if math.isfinite(low):
        x.clamp_(low, high)
    if draw(st.booleans()):
        eps = eps * torch.rand(draw(st.sampled_from([(), (shape[0],)])), generator=generator, dtype=torch.float64)
    ids = torch.randint(-(2**62), 2**62, shape[:1], generator=generator) if draw(st.booleans()) else None
    settings = {"norm": norm, "init": init, "eps": eps, "seed": seed, "sample_ids": ids, "clip_min": low}
    settings |= {"clip_max": high, "restart": draw(st.integers(0, 2**32 - 1))}
    poison = draw(st.sampled_from([None, None, math.nan, math.inf, -math.inf]))
    return x, draw(layouts(len(shape))), settings, poison


def check(x, lay_out, settings, poison):
    given_x = lay_out(x)
    inside = x.double().clamp(settings["clip_min"], settings["clip_max"]) == x.double()
    found = random_start(given_x, **settings)
    if inside.all():
        box = settings["clip_min"], settings["clip_max"]
        assert check_feasible(found, x, settings["eps"], settings["norm"], *box).violations == 0
    plain = random_start(x.as_subclass(Subclass), **settings).as_subclass(torch.Tensor)
    eps = torch.as_tensor(settings["eps"], dtype=torch.float64).max().item()
    # Within 2e-6 of eps and of the deviation, and the last digit of x, if only of the least number.
    limits = torch.finfo(x.dtype)
    scale = 2e-6 * eps + (1e-6 if settings["init"] == "normal(0.3)" else 0.0) + 2 * limits.smallest_normal * limits.eps
    if settings["norm"] == "Linf" and settings["init"] in ("uniform", "uniform_ball", "zero"):
        assert torch.equal(found, plain)
    else:
        torch.testing.assert_close(found, plain, rtol=2 * limits.eps, atol=scale)
    if poison is not None:
        x = x.clone()
        x.view(-1)[-1] = poison
        again = random_start(lay_out(x), **settings)
        assert torch.equal(again.flatten()[:-1], found.flatten()[:-1])
        bounded = math.copysign(min(abs(poison), settings["clip_max"]), 1) if poison > 0 else settings["clip_min"]
        last = again.flatten()[-1].item()
        assert math.isnan(last) if math.isnan(poison) else abs(last - bounded) < 1e-6 or last == bounded


@given(starts())
@cases("interpreted" if INTERPRETED else "cpu")
def test_on_the_cpu(case):
    check(*case)


@not_on_the_interpreter
def test_interpreted():
    run_interpreted(__file__, "cpu")


@not_on_the_interpreter
@given(starts())
@cases("emulated")
def test_emulated(starts_and_state, case):
    x, lay_out, settings, poison = case
    if lay_out(x).is_contiguous() or lay_out(x).is_contiguous(memory_format=torch.channels_last):
        check(x, lay_out, settings, poison)
    else:
        check(x, lambda t: t.contiguous(), settings, poison)
