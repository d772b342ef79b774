"""The L2 and L1 steps on random cases: in ball and box in exact arithmetic, and near their definitions in float64."""

import math
from dataclasses import dataclass
from random import Random

import exact_norms
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from step_samples import GRADIENTS, PIXELS, bits
from stress import cases

from sat_kernels.ops import apgd_step_, pgd_step_, project_
from sat_kernels.ops.perturbation.sizes import round_down
from sat_kernels.testing import check_feasible

FLOATS = (torch.float32, torch.float64)
BOXES = ((0.0, 1.0), (-1.0, 1.0), (-math.inf, 1.0), (0.0, math.inf), (0.1, 0.3), (0.0, 255.0), (-math.inf, math.inf))
RADII = (0.5, 8 / 255, 3.0, 12.0, 0.0, 1e-6, 1e-12, 1e-30, 1e-40, 5e-324, 0.7, 1e30)
LENGTHS = (0.1, -0.25, 2.0, 0.0, 1e-30, 1e-45, 1e30, -1e30, 3 / 255)
HUGE = (*GRADIENTS, 3e38, -3e38, 1e-38, 2e-45)
CALLS = [(function, norm) for norm in ("L2", "L1") for function in ("pgd", "project", "apgd")]


class Subclass(torch.Tensor):
    """Kernels are for plain tensors: a subclass takes the reference path."""


@dataclass
class Case:
    function: str
    norm: str
    box: tuple[float, float]
    tensors: dict
    eps: object
    alpha: object
    options: dict


def lay_out(tensor, rng):
    """With other strides: another order in memory, gaps, an offset."""
    dims = range(tensor.dim())
    order = rng.sample(dims, tensor.dim())
    gaps = [rng.choice([1, 1, 1, 2, 3]) for _ in dims]
    storage = torch.zeros(math.prod(tensor.shape) * math.prod(gaps) + 3, dtype=tensor.dtype)[rng.randrange(4) :]
    sizes = [tensor.shape[d] * gaps[d] for d in order]
    view = storage[: math.prod(sizes)].view(sizes).permute([order.index(d) for d in dims])
    return view[tuple(slice(None, None, gap) for gap in gaps)].copy_(tensor)


def copied(tensor):
    """With the same strides."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)


@st.composite
def steps(draw, function, norm):
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    dtype, box = draw(st.sampled_from(FLOATS)), draw(st.sampled_from(BOXES))
    # The rest from a seed: each draw of hypothesis takes half a millisecond.
    seed = draw(st.integers(0, 2**32 - 1))
    rng, generator = Random(seed), torch.Generator().manual_seed(seed)
    if len(shape) > 1 and math.prod(shape) < 10 and rng.random() < 0.5:
        shape[-1] *= 17  # more than one vector
    low, high = (b if math.isfinite(b) else math.copysign(2.0, b) for b in box)

    def random(*sizes):
        return torch.rand(sizes or shape, generator=generator, dtype=torch.float64)

    def picked(special, *sizes):
        return torch.tensor(special, dtype=torch.float64)[(random(*sizes) * len(special)).long()]

    def size(numbers):
        form = rng.choice([None, None, (), (shape[0],), (shape[0], *(1,) * (len(shape) - 1))])
        if form is None:
            return rng.choice([*numbers, 4 * rng.random(), rng.random()])
        values = picked(numbers, shape[0]).where(random(shape[0]) < 0.7, 4 * random(shape[0]))
        values = values[0] if form == () else values.view(form)
        return values.to(rng.choice([dtype, *FLOATS]))

    eps, alpha = size(RADII), size(LENGTHS)
    x = (low + (high - low) * random()).where(random() < 0.5, picked([*PIXELS, low, high]).clamp(low, high))
    if rng.random() < 0.1:
        x.fill_(0.7 if low <= 0.7 <= high else low)
    x = x.to(dtype).clamp(*limits(box, dtype))
    spread = min(float(torch.as_tensor(eps).max()), 10.0) * rng.choice([0.0, 0.1, 1.0, 3.0])
    near = [x + spread * (2 * random() - 1) * (random() < rng.choice([0.2, 1.0])) for _ in range(2)]
    if rng.random() < 0.5:
        near = [t.clamp(low, high) for t in near]
    if rng.random() < 0.15:
        poison = [math.nan, 0.0, 1.0] if function == "apgd" else [math.nan, math.inf, -math.inf, 0.0, 1.0]
        near[0] = picked(poison).where(random() < 0.3, near[0])
    tensors, options = {"x_adv": near[0].to(dtype), "x": x}, {}
    if function != "project":
        special = rng.choice([HUGE, GRADIENTS[:6], (1e-45, -1e-45, 2e-45), (3e38, -3e38), (0.0, -0.0), (1.0,)])
        grad = picked(special).where(random() < rng.choice([0.0, 0.3, 1.0]), 2 * random() - 1)
        grad = grad * rng.choice([1.0, 1.0, 1e-30, 1e-42, 1e30])
        if rng.random() < 0.5:
            grad = grad.round(decimals=1)  # ties
        # No more bits than x_adv: operators convert those first.
        tensors["grad"] = grad.to(dtype).to(rng.choice([*FLOATS, torch.float16, torch.bfloat16]))
    if function == "apgd":
        tensors["x_prev"] = near[1].to(dtype)
        options["first"] = rng.random() < 0.5
        alpha = alpha if isinstance(alpha, float) else alpha.reshape(alpha.shape[:1])
    if function == "pgd" and rng.random() < 0.5:
        options["mask"] = random(*(rng.choice([n, 1]) for n in shape)) < 0.6
        options["targeted"] = rng.random() < 0.5
    if rng.random() < 0.5:
        options["active"] = random(shape[0]) < 0.7
    if norm == "L1" and function != "project":
        most = 2 * math.prod(shape[1:])
        each = torch.tensor([rng.randint(1, most) for _ in range(shape[0])])
        options["top_k"] = rng.choice([None, rng.randint(1, most), rng.uniform(0.01, 0.99), each])
    tensors = {name: lay_out(t, rng) for name, t in tensors.items()}
    if "grad" in tensors and rng.random() < 0.25:
        tensors["grad"] = tensors["grad"][:1].expand(shape)
    return Case(function, norm, box, tensors, eps, alpha, options)


def by_package(case: Case, subclass: bool) -> dict:
    """A copy of the tensors, after the call."""
    given = {k: t if k == "grad" else copied(t) for k, t in case.tensors.items()}
    x_adv, x, grad = (given.get(k) for k in ("x_adv", "x", "grad"))
    before = None if grad is None else bits(grad).clone()
    if subclass:
        x_adv = x_adv.as_subclass(Subclass)
    common = {"eps": case.eps, "norm": case.norm, "clip_min": case.box[0], "clip_max": case.box[1], **case.options}
    if case.function == "pgd":
        pgd_step_(x_adv, grad, x, alpha=case.alpha, **common)
    elif case.function == "project":
        project_(x_adv, x, **common)
    else:
        apgd_step_(x_adv, given["x_prev"], grad, x, step_size=case.alpha, **common)
    assert torch.equal(bits(x), bits(case.tensors["x"]))
    assert grad is None or torch.equal(bits(grad), before)
    return given


def limits(box, dtype):
    return -round_down(-box[0], dtype), round_down(box[1], dtype)


def numbers(value, samples: int, dtype, down: bool) -> list[float]:
    """One for each sample, as rounded to ``dtype``."""
    values = torch.as_tensor(value, dtype=torch.float64).flatten().expand(samples).tolist()
    return [round_down(v, dtype) if down else torch.tensor(v, dtype=torch.float64).to(dtype).item() for v in values]


def check(case: Case, found: dict) -> None:
    x_adv, x = case.tensors["x_adv"], case.tensors["x"]
    samples, dtype, options = x.shape[0], x.dtype, case.options
    active = options.get("active", torch.ones(samples, dtype=torch.bool))
    result = found["x_adv"]
    assert torch.equal(bits(result[~active]), bits(x_adv[~active]))
    if case.function == "apgd":
        moved = active if case.norm == "L2" else torch.zeros_like(active)
        assert torch.equal(bits(found["x_prev"][moved]), bits(x_adv[moved]))
        assert torch.equal(bits(found["x_prev"][~moved]), bits(case.tensors["x_prev"][~moved]))
    assert torch.equal(result.isnan(), x_adv.isnan())
    radii = torch.as_tensor(case.eps, dtype=torch.float64).flatten().expand(samples)
    known = torch.where(result.isnan(), x, result)[active]
    report = check_feasible(known, x[active], radii[active], case.norm, *case.box)
    assert report.violations == 0, report
    eps, alpha = numbers(case.eps, samples, dtype, True), numbers(case.alpha, samples, dtype, False)
    for i in range(samples):
        if active[i] and x_adv[i].isfinite().all():
            sign = -1 if options.get("targeted") else 1
            check_sample(case, i, result[i].double().flatten().tolist(), eps[i], sign * alpha[i])


def check_sample(case: Case, i: int, found: list, eps: float, alpha: float) -> None:
    """Near the definition, as far as rounding lets it."""
    tensors, options, box = case.tensors, case.options, limits(case.box, case.tensors["x"].dtype)
    x_adv, x = (tensors[name][i].double().flatten().tolist() for name in ("x_adv", "x"))
    move = before = [a - c for a, c in zip(x_adv, x, strict=True)]
    step = [0.0] * len(x)
    if case.function != "project":
        grad = tensors["grad"][i].double()
        if "mask" in options:
            grad = grad.where(options["mask"].expand(tensors["x"].shape)[i], 0.0)
        grad = grad.flatten().tolist()
        if case.norm == "L2":
            direction = exact_norms.l2_direction(grad)
        else:
            k, size = options["top_k"], len(x)
            k = int(k[i]) if isinstance(k, torch.Tensor) else k
            k = k if isinstance(k, int) else max(1, round((0.01 if k is None else k) * size))
            faces = box if case.function == "pgd" else None
            direction = exact_norms.l1_direction(grad, x_adv, 1 if alpha >= 0 else -1, k, faces)
        step = [alpha * d for d in direction]
        move = [d + s for d, s in zip(before, step, strict=True)]
    rounding = torch.finfo(tensors["x"].dtype).eps
    size = math.hypot(*before) + math.hypot(*step) if case.norm == "L2" else max(map(abs, before)) + max(map(abs, step))
    least = 1e-30 if rounding > 1e-10 else 1e-290
    if not (size < 1e29 and eps > least):
        return
    with_momentum = case.function == "apgd" and case.norm == "L2" and not options["first"]
    if case.norm == "L2":
        norms = [math.hypot(*move)]
        wanted = [min(max(c + d, box[0]), box[1]) for c, d in zip(x, exact_norms.to_l2_ball(move, eps), strict=True)]
        if with_momentum:
            prev = tensors["x_prev"][i].double().flatten().tolist()
            move = [a + 0.75 * (z - a) + 0.25 * (a - p) - c for a, z, p, c in zip(x_adv, wanted, prev, x, strict=True)]
            norms.append(math.hypot(*move))
            size += math.hypot(*(p - c for p, c in zip(prev, x, strict=True)))
            wanted = [
                min(max(c + d, box[0]), box[1]) for c, d in zip(x, exact_norms.to_l2_ball(move, eps), strict=True)
            ]
        if min(norms) < 0.05 * size:
            return  # a difference of large moves
        inside = max(norms) < eps * (1 - 1e-5)
        # The length of a difference is known within roundings of its parts' squares.
        reach = size * min(1.0, eps / min(norms)) * max(1.0, size / min(norms)) if norms[0] > 0 else 0.0
    else:
        moved = exact_norms.to_l1_ball(move, x, eps, box)
        wanted = [min(max(c + d, box[0]), box[1]) for c, d in zip(x, moved, strict=True)]
        left = math.fsum(map(abs, moved))
        inside, reach = left < eps * (1 - 1e-5), size + eps
    # On the CPU an L2 step rounds down, and is scaled down by up to 17 half units of both lengths for that.
    roundings = 10 if case.norm == "L2" else 8
    for f, w, a, c, s in zip(found, wanted, x_adv, x, step, strict=True):
        tolerance = rounding * (roundings * reach + 4 * abs(c) + 4 * abs(w)) + (len(x) + 40) * 2.0**-52 * reach + 1e-40
        if with_momentum:  # pixels are rounded on the way, which the length feels
            tolerance += 4 * rounding * math.hypot(*x) * abs(w - c) / eps
        assert abs(f - w) <= tolerance, (f, w, c, a, eps, alpha)
        if inside and s == 0 and not with_momentum and case.norm == "L2":
            assert f == min(max(a, box[0]), box[1])


@pytest.mark.parametrize(("function", "norm"), CALLS)
def test_against_definitions(function, norm):
    @given(steps(function, norm))
    @cases("cpu")
    def run(case):
        check(case, by_package(case, subclass=False))

    run()


@pytest.mark.parametrize(("function", "norm"), CALLS)
def test_plain_path_against_definitions(function, norm):
    @given(steps(function, norm))
    @cases("emulated")
    def run(case):
        check(case, by_package(case, subclass=True))

    run()
