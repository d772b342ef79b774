"""The losses on random rows: shapes, strides, dtypes, scales, ties, bad numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_definitions import COMPARED, LEAST_CLASSES, NAMES, arguments, check
from stress import INTERPRETED, cases, not_on_the_interpreter, run_interpreted

from sat_kernels.ops import attack_loss_and_grad

KIND = "interpreted" if INTERPRETED else "cpu"
# The interpreter rounds to bfloat16 towards zero, and knows no denormal ones.
DTYPES = (torch.float32, torch.float64, torch.float16) + (() if INTERPRETED else (torch.bfloat16,))
LAYOUTS = (
    lambda t: t,
    lambda t: t.t().contiguous().t(),
    lambda t: torch.stack([t, t + 1], 2)[..., 0],
    lambda t: torch.stack([t, t + 1], 1)[:, 0],
    lambda t: torch.cat([t.new_zeros(3), t.flatten()])[3:].view(t.shape),
)


@st.composite
def problems(draw):
    name = draw(st.sampled_from(NAMES))
    size, classes = draw(st.integers(0, 5)), draw(st.integers(LEAST_CLASSES.get(name, 2), 70))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scale, ties = draw(st.sampled_from([1e-3, 1.0, 5.0, 50.0])), draw(st.booleans())
    logits = []
    for _ in range(2):
        z = torch.randn(size, classes, generator=generator, dtype=torch.float64)
        z = (z * 2).round() / 2 if ties else z
        logits.append(draw(st.sampled_from(LAYOUTS))((z * scale).to(dtype)))
    y, targets = (torch.randint(classes, (size,), generator=generator) for _ in range(2))
    if draw(st.booleans()):
        y = logits[0].argmax(1)
    return name, logits[0], y, targets, logits[1]


def check_rows(problem):
    name, z, y, targets, clean = problem
    found = attack_loss_and_grad(z, **arguments(name, y, targets, clean), clean_grad=name in COMPARED)
    if len(z):
        check(name, found, z, y, targets, clean if name in COMPARED else None)


def check_numbers(problem, seed):
    """Finite where logits are, NaN elsewhere."""
    name, z, y, targets, clean = problem
    generator = torch.Generator().manual_seed(seed)
    info = torch.finfo(z.dtype)
    special = torch.tensor([info.max, -info.max, info.tiny, 0.0, -0.0, torch.inf, -torch.inf, torch.nan], dtype=z.dtype)
    z = z.clone()
    kinds = len(special) if seed % 2 else 5
    picked = special[torch.randint(kinds, z.shape, generator=generator)]
    z = torch.where(torch.rand(z.shape, generator=generator) < 0.2, picked, z)
    found = attack_loss_and_grad(z, **arguments(name, y, targets, clean), clean_grad=name in COMPARED)
    finite = z.isfinite().all(1)
    assert torch.equal(found.loss.isfinite(), finite)
    assert torch.equal(found.margin.isfinite(), finite)
    assert torch.equal(found.grad.isfinite().all(1), finite)
    assert torch.equal(found.correct, z.argmax(1) == y if len(z) else found.correct)


@given(problems())
@cases(KIND)
@pytest.mark.timeout(0)
def test_any_rows(problem):
    check_rows(problem)


@given(problems(), st.integers(0, 2**32 - 1))
@cases(KIND)
@pytest.mark.timeout(0)
def test_any_numbers(problem, seed):
    check_numbers(problem, seed)


@not_on_the_interpreter
@given(problems(), st.integers(0, 2**32 - 1))
@cases("emulated")
def test_emulated(losses, problem, seed):
    if len(problem[1]) == 0:
        return  # the operator launches nothing
    check_rows(problem)
    check_numbers(problem, seed)


@not_on_the_interpreter
def test_interpreted():
    run_interpreted(__file__, "any")
