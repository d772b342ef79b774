"""Where results lie, and what may be put in."""

import math

import torch
from scenarios import SHAPE, Linear, Network, images, labels, pixels
from suite import Case, expect

from sat_kernels.testing import check_feasible


def sets():
    yield "images of a file", pixels(16)
    yield "uniform images", images(16)
    yield "constant images", torch.full((16, *SHAPE), 0.7)


def runs(case: Case, eps: float):
    """Results that have reached the ball's surface."""
    starts = [s for s, need in ((False, "fixed_start"), (True, "random_start")) if case.can(need)]
    for name, x in sets():
        for random_start in starts:
            x_adv = case(Linear(), x, labels(16), eps=eps, alpha=eps / 2, random_start=random_start)
            yield f"{name}, random_start={random_start}", x, x_adv.detach()


def unit(norm: str) -> str:
    return "pixels" if norm == "Linf" else "samples"


@expect("The perturbation is no longer than eps, but for rounding (1e-4 of eps, and 1e-6).")
def ball(case: Case):
    for name, x, x_adv in runs(case, case.eps):
        report = check_feasible(x_adv, x, case.eps * 1.0001 + 1e-6, case.norm, -math.inf, math.inf)
        assert report.violations == 0, f"{name}: {report.violations} {unit(case.norm)} by {report.max_excess:.1e}"


@expect("The perturbation is no longer than eps, in exact arithmetic (eps a float32).")
def ball_exact(case: Case):
    found: dict[str, list[float]] = {}
    for name, x, x_adv in runs(case, case.eps):
        report = check_feasible(x_adv, x, case.eps, case.norm, -math.inf, math.inf)
        if report.violations:
            share = report.violations / (x.numel() if case.norm == "Linf" else len(x))
            worst = found.setdefault(name.split(",")[0], [0.0, 0.0])
            found[name.split(",")[0]] = [max(worst[0], share), max(worst[1], report.max_excess)]
    outside = [f"{name}: {share:.0%} by up to {excess:.1e}" for name, (share, excess) in found.items()]
    assert not found, f"{unit(case.norm)} outside: {'; '.join(outside)}"


@expect("Results are inside the box [0, 1], exactly.")
def box(case: Case):
    for name, _, x_adv in runs(case, 8 * case.eps):
        outside = ~((x_adv >= 0) & (x_adv <= 1))
        assert not outside.any(), f"{name}: {outside.float().mean():.1%} of pixels outside"


@expect("Another box, [-1, 1], is used in full and never left.", "box")
def other_box(case: Case):
    x, y = 2 * pixels(16) - 1, labels(16)
    x_adv = case(Linear(), x, y, eps=16 * case.eps, alpha=8 * case.eps, box=(-1.0, 1.0))
    outside = ~((x_adv >= -1) & (x_adv <= 1))
    assert not outside.any(), f"{outside.float().mean():.1%} of pixels outside"
    moved = (x_adv != x) & (x < 0)
    assert moved.any(), "no negative pixel moves"
    assert (x_adv[moved] < 0).any(), "no moved pixel stays negative"


@expect("eps=0 gives the clean input.", "zero_eps")
def zero_eps(case: Case):
    x = pixels()
    x_adv = case(Linear(), x, labels(), eps=0.0)
    assert torch.equal(x_adv, x), f"differs by {(x_adv - x).abs().max():.1e}"


@expect("Results have x's shape and dtype, need no gradient and own their memory.")
def plain_result(case: Case):
    x = images()
    for eps in (case.eps, 0.0)[: 2 if case.can("zero_eps") else 1]:
        x_adv = case(Network(), x, labels(), eps=eps)
        assert (x_adv.shape, x_adv.dtype) == (x.shape, x.dtype), f"{x_adv.dtype} {tuple(x_adv.shape)}"
        assert not x_adv.requires_grad, f"eps={eps}: requires_grad is True"
        assert x_adv.data_ptr() != x.data_ptr(), f"eps={eps}: shares memory with x"


@expect("x and y are left as they were, and x has no gradient.")
def inputs_untouched(case: Case):
    x, y = images(), labels()
    before = x.clone(), y.clone()
    case(Network(), x, y)
    assert torch.equal(x, before[0]), "x has changed"
    assert torch.equal(y, before[1]), "y has changed"
    assert not x.requires_grad, "x requires grad"
    assert x.grad is None, "x has a gradient"


@expect("channels_last input gives the same as contiguous input.", "fixed_start")
def channels_last(case: Case):
    x, y = images(), labels()
    same(case(Linear(), x, y), case(Linear(), x.contiguous(memory_format=torch.channels_last), y))


@expect("Strided views as input give the same as contiguous input.", "fixed_start")
def strided(case: Case):
    x, y = images(), labels()
    expected = case(Linear(), x, y)
    wide = torch.zeros(8, 3, 8, 16)
    wide[..., ::2] = x
    same(expected, case(Linear(), wide[..., ::2], y))
    same(expected, case(Linear(), x.transpose(2, 3).contiguous().transpose(2, 3), y))


@expect("float64 input to a float64 model gives a float64 result, in the ball to float64's rounding.", "float64")
def float64(case: Case):
    x = images().double() * 0.999  # no float32 numbers
    x_adv = case(Linear().double(), x, labels(), alpha=case.eps)
    assert x_adv.dtype == torch.float64, f"the result is {x_adv.dtype}"
    assert not torch.equal(x_adv, x_adv.float().double()), "the result is one of float32, converted"
    excess = check_feasible(x_adv.detach(), x, case.eps, case.norm).max_excess
    assert excess < 1e-12, f"outside by {excess:.1e}"


@expect("(B, D) and (B, C, L) inputs are taken.", "any_shape")
def any_shape(case: Case):
    for shape in ((12,), (3, 4)):
        x = images(8, shape=shape)
        x_adv = case(Linear(features=12), x, labels())
        assert x_adv.shape == x.shape, f"{tuple(x_adv.shape)} for {tuple(x.shape)}"
        assert not torch.equal(x_adv, x), f"{tuple(x.shape)} does not move"


@expect("Where the gradient is zero, the result is finite and in the ball.")
def zero_gradient(case: Case):
    x = images()
    dead = Linear(scale=0.0)
    x_adv = case(dead, x, labels())
    assert x_adv.isfinite().all(), f"{(~x_adv.isfinite()).float().mean():.0%} of pixels are not finite"
    assert check_feasible(x_adv.detach(), x, case.eps * 1.0001 + 1e-6, case.norm).violations == 0, "outside the ball"


class OneBroken(Linear):
    """The first sample's logits are NaN."""

    def forward(self, x):
        factor = torch.ones(len(x), 1)
        factor[0] = math.nan
        return super().forward(x) * factor


@expect("A sample whose logits are NaN does not disturb the others.", "fixed_start")
def nan_sample(case: Case):
    x, y = images(), labels()
    same(case(Linear(), x, y)[1:], case(OneBroken(), x, y)[1:])


@expect("Under the caller's autocast, float32 in gives float32 out, inside the ball.")
def under_autocast(case: Case):
    x = images()
    with torch.autocast("cpu", torch.bfloat16):
        x_adv = case(Network(), x, labels())
    assert x_adv.dtype == torch.float32, f"the result is {x_adv.dtype}"
    report = check_feasible(x_adv.detach(), x, case.eps * 1.0001 + 1e-6, case.norm)
    assert report.violations == 0, f"{report.violations} {unit(case.norm)} outside by {report.max_excess:.1e}"


@expect("A negative eps is refused.")
def negative_eps(case: Case):
    try:
        case(Linear(), images(), labels(), eps=-case.eps)
    except Exception:
        return
    raise AssertionError("eps < 0 is accepted in silence")


def same(expected: torch.Tensor, found: torch.Tensor) -> None:
    """To rounding: sums may have another order."""
    gap = (expected - found).abs().max()
    assert gap <= 1e-5, f"results differ by up to {gap:.1e}"
