"""The L2 and L1 steps in Triton's interpreter on random cases: feasible in exact arithmetic, and near the CPU's."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from step_samples import GRADIENTS, PIXELS
from stress import cases, not_on_the_interpreter, on_the_interpreter, run_interpreted

from sat_kernels.testing import check_feasible

# With pixels to 255, rounding them to nearest would leave the ball.
BOXES = ((0.0, 1.0), (-1.0, 1.0), (0.125, 0.3125), (0.0, 255.0), (0.0, 255.0), (-math.inf, math.inf))
RADII = (8 / 255, 0.5, 3.0, 0.1, 0.03, 1.7, 0.0, 1e-12, 1e-40, 1e30)
STEPS = (0.1, -0.25, 2.0, 0.7, -3.0, 0.0, 1e-41, 1e30)
OPERATORS = ("pgd_step_l2_", "pgd_step_l1_", "apgd_step_l2_", "apgd_step_l1_")


@st.composite
def steps(draw, name):
    """The arguments of an operator."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 7, 40, 200])))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    box, eps, alpha = (draw(st.sampled_from(of)) for of in (BOXES, RADII, STEPS))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    poisoned = draw(st.booleans())

    def mixed(special, low, high):
        picked = torch.tensor(special, dtype=torch.float64)[torch.randint(len(special), shape, generator=generator)]
        random = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
        return random.where(torch.rand(shape, generator=generator) < 0.5, picked) if poisoned else random

    def lay_out(tensor):
        order = draw(st.sampled_from([(0, 1, 2), (0, 2, 1), (2, 1, 0)]))
        return tensor.permute(order).contiguous().permute([order.index(d) for d in range(3)])

    finite = [b if math.isfinite(b) else math.copysign(2.0, b) for b in box]
    x = mixed([*PIXELS, *finite], *finite).clamp(*finite).to(dtype).clamp(*box)
    near = [(x + min(eps, 10.0) * mixed([0.0, 1.0, -1.0], -1.0, 1.0)).to(dtype) for _ in range(2)]
    grad = mixed(GRADIENTS, -1.0, 1.0)
    grad = grad.to(draw(st.sampled_from([dtype, torch.float16]))).masked_fill(
        torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.0, 0.9])), 0.0
    )

    def of_samples(numbers, chosen=None):
        if chosen is None and draw(st.booleans()):
            return None
        numbers = [chosen or draw(st.sampled_from(numbers)) for _ in range(shape[0])]
        return torch.tensor(numbers, dtype=torch.float64).clamp(max=1e30).to(dtype).unsqueeze(1)

    eps = torch.tensor(eps, dtype=dtype).item()
    eps_of, active, mask = of_samples(RADII), None, None
    if draw(st.booleans()):
        active = torch.rand(shape[0], generator=generator) < 0.7
    if draw(st.booleans()):
        mask = lay_out(torch.rand(shape, generator=generator) < 0.7)
    out = lay_out(torch.full(shape, 7.0)) if draw(st.booleans()) else None
    numbers = [None if out is None or draw(st.booleans()) else torch.rand(shape[1]) + 0.1 for _ in range(2)]
    rest = (active, out, *numbers)
    k = torch.randint(1, shape[1] * shape[2] + 2, (shape[0], 1), generator=generator)
    x_adv, x_prev, grad, x = (lay_out(t) for t in (*near, grad, x))
    if name.startswith("apgd"):
        sizes = (eps, eps_of, of_samples(STEPS, alpha))
        if name == "apgd_step_l2_":
            return (x_adv, x_prev, grad, x, *sizes, draw(st.booleans()), *box, *rest)
        return (x_adv, grad, x, *sizes, k, *box, *rest)
    if draw(st.integers(0, 4)) == 0:
        grad = None
    top_k = (3, draw(st.sampled_from([None, k]))) if name == "pgd_step_l1_" else ()
    return (x_adv, grad, x, eps, alpha, eps_of, of_samples(STEPS), *box, mask, *rest, *top_k)


def written(name, arguments, run):
    """By a call with copies: x_adv, x_prev and out, what is not there is None."""
    mine = [t.clone(memory_format=torch.preserve_format) if isinstance(t, torch.Tensor) else t for t in arguments]
    run(*mine)
    before = mine[1] if name == "apgd_step_l2_" else None
    return mine[0], before, mine[-5 if name == "pgd_step_l1_" else -3]


def check(name, arguments):
    l1 = "l1" in name
    x_adv = arguments[0]
    x = arguments[3 if name == "apgd_step_l2_" else 2]
    numbers = [i for i, a in enumerate(arguments) if isinstance(a, float)]
    eps = arguments[numbers[0]]
    eps_of = next(a for a in arguments[numbers[0] + 1 :] if not isinstance(a, float))
    box = tuple(arguments[i] for i in numbers[-2:])
    active = arguments[-6 if name == "pgd_step_l1_" else -4]
    from sat_kernels.triton_kernels import norm_operators  # imports Triton

    found, before, out = written(name, arguments, getattr(norm_operators, name))
    moved = torch.ones(len(x), dtype=torch.bool) if active is None else active
    torch.testing.assert_close(found[~moved], x_adv[~moved], rtol=0, atol=0, equal_nan=True, check_stride=False)
    radii = torch.full((len(x),), eps, dtype=torch.float64) if eps_of is None else eps_of.squeeze(1).double()
    report = check_feasible(found[moved], x[moved], radii[moved], "L1" if l1 else "L2", *box)
    assert report.violations == 0, report
    wanted, before_wanted, out_wanted = written(name, arguments, getattr(torch.ops.sat_kernels, name))
    single = x.dtype == torch.float32
    # An L1 projection may stop 8 roundings of eps short, and pixels be a unit apart.
    scale = (radii.clamp(max=1e3).max().item() + 10.0) * (1e-6 if single else 1e-13)
    scale += x.nan_to_num().abs().max().item() * torch.finfo(x.dtype).eps
    torch.testing.assert_close(found, wanted, rtol=0, atol=scale, check_stride=False)
    if before is not None:
        torch.testing.assert_close(before, before_wanted, rtol=0, atol=0, check_stride=False)
    if out is not None:
        torch.testing.assert_close(out, out_wanted, rtol=1e-5, atol=10 * scale + 1e-5, check_stride=False)


@on_the_interpreter
@pytest.mark.parametrize("name", OPERATORS)
@given(data=st.data())
@cases("interpreted")
def test_against_the_cpu(name, data):
    check(name, data.draw(steps(name)))


@on_the_interpreter
@pytest.mark.parametrize("name", ["pgd_step_l2_", "pgd_step_l1_"])
def test_what_is_inside_stays_as_on_the_cpu(name):
    """Though x + (x_adv - x) is not x_adv where the difference is rounded."""
    from sat_kernels.triton_kernels import norm_operators

    torch.manual_seed(0)
    x, x_adv = torch.rand(2, 300) * 0.01, torch.rand(2, 300)
    assert not torch.equal(x + (x_adv - x), x_adv)
    found = x_adv.clone()
    top_k = (1, None) if name == "pgd_step_l1_" else ()
    getattr(norm_operators, name)(found, None, x, 1e3, 0.0, None, None, 0.0, 1.0, *[None] * 5, *top_k)
    assert torch.equal(found, x_adv)


@not_on_the_interpreter
def test_interpreted():
    run_interpreted(__file__, "cpu", backend="auto")  # both are called: the operators are the CPU's
