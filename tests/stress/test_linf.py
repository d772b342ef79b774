"""The Linf steps on many random cases, against exact arithmetic: on the CPU, emulated and interpreted."""

import itertools
import math
from dataclasses import dataclass, replace

import exact_steps
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from step_samples import GRADIENTS, PIXELS, bits
from stress import INTERPRETED, cases, not_on_the_interpreter, run_interpreted

from sat_kernels.ops import apgd_step_, momentum_step_, pgd_step_, project_
from sat_kernels.testing import check_feasible

FLOATS = (torch.float32, torch.float64)
# The interpreter rounds to bfloat16 towards zero, and knows no denormal ones.
SHORT = (torch.float16,) if INTERPRETED else (torch.float16, torch.bfloat16)
BOXES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.1, 0.3), (-math.inf, math.inf))
RADII = (8 / 255, 0.031, 0.3, 0.0, 1e-12, 1e-40, 5e-324, 0.7, 1e30)


@dataclass
class Case:
    """A call: tensors by name, in whatever layouts, and numbers."""

    function: str
    box: tuple[float, float]
    tensors: dict
    eps: object
    alpha: object
    options: dict


@st.composite
def layouts(draw, shape, dense=False):
    """A function that gives a tensor of ``shape`` other strides, but no other values."""
    dims = range(len(shape))
    order = (
        [0, *(d + 1 for d in draw(st.permutations(range(len(shape) - 1))))] if dense else draw(st.permutations(dims))
    )
    gaps = [1 if dense else draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in dims]
    offset = 0 if dense else draw(st.integers(0, 3))

    def lay_out(tensor):
        sizes = [(tensor.shape[d] - 1) * gaps[d] + 1 if tensor.shape[d] else 0 for d in order]
        storage = torch.zeros(offset + math.prod(sizes), dtype=tensor.dtype)
        view = storage[offset:].view(sizes).permute([order.index(d) for d in dims])
        return view[tuple(slice(None, None, gap) for gap in gaps)].copy_(tensor)

    return lay_out


@st.composite
def sizes(draw, shape, dtype, numbers):
    """A number, or a tensor of one, per sample, per channel, or both."""
    number = st.sampled_from(numbers) | st.floats(0, 0.5)
    forms = [(), shape[:1], (shape[0], *(1,) * (len(shape) - 1))]
    if len(shape) > 1:
        ones = (1,) * (len(shape) - 2)
        forms += [(1, shape[1], *ones), (shape[0], shape[1], *ones)]
        forms += [(shape[1], *ones)] if ones else []
    form = draw(st.sampled_from([None, None, *forms]))
    if form is None:
        return draw(number)
    values = [draw(number) for _ in range(min(4, math.prod(form)))] or [0.0]
    values = torch.tensor(list(itertools.islice(itertools.cycle(values), math.prod(form))), dtype=torch.float64)
    return values.clamp(max=torch.finfo(torch.float32).max).to(draw(st.sampled_from([dtype, *FLOATS]))).view(form)


@st.composite
def steps(draw, dense=False):
    function = draw(st.sampled_from(["pgd", "pgd", "project", "apgd", "momentum"]))
    shape = draw(st.lists(st.integers(1 if dense else 0, 4), min_size=1, max_size=4))
    if math.prod(shape) < 10 and draw(st.booleans()):
        shape[-1] *= 37  # more than one access
    dtype = draw(st.sampled_from(FLOATS))
    seed = draw(st.integers(0, 2**32 - 1))
    box = draw(st.sampled_from(BOXES))
    generator = torch.Generator().manual_seed(seed)

    def mixed(special, low=0.0, high=1.0):
        picked = torch.tensor(special, dtype=torch.float64)[torch.randint(len(special), shape, generator=generator)]
        random = low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
        return random.where(torch.rand(shape, generator=generator) < 0.5, picked)

    eps = draw(sizes(shape, dtype, RADII))
    scale = eps if isinstance(eps, float) else 0.1
    finite = [b if math.isfinite(b) else math.copysign(2.0, b) for b in box]
    x = mixed([*PIXELS, *finite, *(-p for p in PIXELS)], *finite)
    if draw(st.integers(0, 3)):
        x = x.clamp(*finite)
    if draw(st.integers(0, 9)) == 0:
        x.fill_(0.7)
    near = [x + min(scale, 10.0) * mixed([0.0, 1.0, 0.5, -1.0, 2.0], -1.0, 1.0) for _ in range(2)]
    if draw(st.integers(0, 3)) == 0:
        near[0] = mixed([math.nan, math.inf, -math.inf, 0.0, 1.0])
    tensors = {"x_adv": near[0].to(dtype), "x": x.to(dtype)}
    if function != "project":
        large = draw(st.sampled_from([1.0, 1e-30, 1e30]))
        special = GRADIENTS if draw(st.booleans()) else [g for g in GRADIENTS if not math.isinf(g)]
        tensors["grad"] = (mixed(special, -1.0, 1.0) * large).to(draw(st.sampled_from([*FLOATS, *SHORT])))
        if draw(st.integers(0, 5)) == 0:
            tensors["grad"].zero_()
    if function == "apgd":
        tensors["x_prev"] = near[1].to(dtype)
    if function == "momentum":
        tensors["momentum"] = mixed([0.0, 1.0], -3.0, 3.0).to(dtype)
    numbers = [0.01, 0.0, -0.01, 2 / 255, 1e-41, 10.0]
    alpha = draw(sizes(shape if function != "apgd" else shape[:1], dtype, numbers))
    options = {"first": draw(st.booleans())} if function == "apgd" else {}
    if function in ("pgd", "momentum") and draw(st.booleans()):
        form = [n if draw(st.booleans()) else 1 for n in shape]
        options["mask"] = torch.rand(form, generator=generator) < 0.7
    if draw(st.booleans()):
        options["active"] = torch.rand(shape[0], generator=generator) < 0.7
    lay = {name: draw(layouts(shape, dense)) for name in (*tensors, "out")}
    if dense:
        lay = dict.fromkeys(lay, lay["x_adv"]) | {"out": draw(layouts(shape, dense))}
    tensors = {name: lay[name](tensor) for name, tensor in tensors.items()}
    if function != "project" and draw(st.booleans()):
        options["out"] = lay["out"](torch.full(shape, 7.0, dtype=draw(st.sampled_from([torch.float32, *SHORT]))))
        channels = shape[1] if len(shape) > 1 else 1
        if draw(st.booleans()):
            options["mean"] = torch.rand(channels, generator=generator)
        if draw(st.booleans()):
            options["std"] = torch.rand(channels, generator=generator) + 0.1
    return Case(function, box, tensors, eps, alpha, options)


def by_package(case: Case) -> dict:
    """Of a copy of the case: the tensors that were written."""
    given = {k: v.clone() if v.is_contiguous() else copied(v) for k, v in case.tensors.items()}
    options = dict(case.options)
    if "out" in options:
        options["out"] = copied(options["out"])
    common = {"eps": case.eps, "clip_min": case.box[0], "clip_max": case.box[1], **options}
    x_adv, x, grad = (given.get(k) for k in ("x_adv", "x", "grad"))
    if case.function == "pgd":
        result = pgd_step_(x_adv, grad, x, alpha=case.alpha, **common)
    elif case.function == "project":
        result = project_(x_adv, x, **common)
    elif case.function == "apgd":
        result = apgd_step_(x_adv, given["x_prev"], grad, x, step_size=case.alpha, **common)
    else:
        result = momentum_step_(x_adv, given["momentum"], grad, x, alpha=case.alpha, decay=0.9, **common)
    assert result is x_adv
    for name in ("x", "grad"):
        if name in given:
            assert torch.equal(bits(given[name]), bits(case.tensors[name])), f"{name} was written to"
    return given | ({"out": options["out"]} if "out" in options else {})


def copied(tensor):
    """With the same strides."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)


def spread(size, shape, dtype, down):
    """One number for each element, in float64, as rounded to ``dtype``."""
    value = torch.as_tensor(size, dtype=torch.float64)
    if value.dim() == 1:
        value = value.view(-1, *(1,) * (len(shape) - 1))
    rounded = value.to(dtype)
    if down:
        below = torch.nextafter(rounded, torch.full_like(rounded, -math.inf))
        rounded = torch.where(rounded.double() > value, below, rounded)
    return rounded.double().expand(shape).flatten().tolist()


def check(case: Case, found: dict) -> None:
    x_adv, x = case.tensors["x_adv"], case.tensors["x"]
    shape, dtype, options = x.shape, x.dtype, case.options
    eps, alpha = spread(case.eps, shape, dtype, True), spread(case.alpha, shape, dtype, False)
    box = tuple(spread(b, (1,), dtype, True)[0] * sign for sign, b in ((-1, -case.box[0]), (1, case.box[1])))
    active = options.get("active", torch.ones(shape[0], dtype=torch.bool))
    moved = active.view(-1, *(1,) * (len(shape) - 1)).expand(shape)
    mask = options.get("mask", torch.tensor(True)).expand(shape).flatten().tolist()
    g = case.tensors.get("grad", torch.zeros(shape))
    if case.function == "momentum":
        check_momentum(case, found["momentum"], moved)
        g = found["momentum"]
    rows = [t.double().flatten().tolist() for t in (x_adv, g, x)]
    wanted = []
    if case.function == "apgd":
        before = case.tensors["x_prev"].double().flatten().tolist()
        for a, d, p, e, s, b in zip(*rows, eps, alpha, before, strict=True):
            wanted.append(exact_steps.apgd(a, d, p, e, s, box, dtype, b, options["first"]))
        assert torch.equal(bits(found["x_prev"]), bits(torch.where(moved, x_adv, case.tensors["x_prev"])))
    else:
        for a, d, p, e, s, m in zip(*rows, eps, alpha, mask, strict=True):
            wanted.append(exact_steps.step(a, d, p, e, s if m else 0.0, box, dtype))
    wanted = torch.where(moved, torch.tensor(wanted, dtype=torch.float64).view(shape).to(dtype), x_adv)
    torch.testing.assert_close(found["x_adv"], wanted, rtol=0, atol=0, equal_nan=True, check_stride=False)
    if "out" in options:
        per_channel = (-1, *(1,) * (len(shape) - 2)) if len(shape) > 1 else (1,)
        result = found["x_adv"].float()
        result = result - options["mean"].view(per_channel) if "mean" in options else result
        result = result / options["std"].view(per_channel) if "std" in options else result
        result = torch.where(moved, result.to(options["out"].dtype), options["out"])
        torch.testing.assert_close(found["out"], result, rtol=0, atol=0, equal_nan=True, check_stride=False)
    check_feasibility(case, found["x_adv"], x, eps, moved)


def check_feasibility(case, x_adv, x, eps, moved):
    """Wherever there is a point of the box with the ball around it."""
    inside = moved & x_adv.isfinite() & (x.double() >= case.box[0]) & (x.double() <= case.box[1])
    exact = torch.tensor(eps, dtype=torch.float64).view(x.shape)[inside]
    report = check_feasible(x_adv[inside], x[inside], exact, clip_min=case.box[0], clip_max=case.box[1])
    assert report.violations == 0


def check_momentum(case, found, moved):
    before, grad = case.tensors["momentum"], case.tensors["grad"]
    if (grad.dtype == torch.float64) != (before.dtype == torch.float64):
        grad = grad.to(before.dtype)  # as documented
    eps = torch.finfo(before.dtype).eps
    decay = float(np.float32(0.9)) if before.dtype == torch.float32 else 0.9
    for i in range(len(before)):
        if before[i].numel() == 0:
            continue
        old, new, g = (t[i].double().flatten().tolist() for t in (before, found, grad))
        if not moved[i].all():
            assert new == old
            continue
        for value, (wanted, size) in zip(new, exact_steps.momentum(old, g, decay), strict=True):
            assert abs(value - wanted) <= 4 * eps * size + 1e-40, (value, wanted)


@given(steps())
@cases("interpreted" if INTERPRETED else "cpu")
def test_against_exact_arithmetic(case):
    check(case, by_package(case))


@not_on_the_interpreter
@given(case=steps(dense=True))
@cases("emulated")
def test_emulated(attack_steps, case):
    from attack_steps import result, run_step

    case = replace(case, function=case.function.replace("project", "pgd"))
    function = {"pgd": "linf", "apgd": "apgd_linf", "momentum": "momentum_linf"}[case.function]
    tensors, options, dtype = dict(case.tensors), case.options, case.tensors["x"].dtype
    shape, batch = tensors["x"].shape, torch.preserve_format
    for name, size in (("eps", case.eps), ("alpha", case.alpha)):
        full = torch.tensor(spread(size, shape, dtype, name == "eps"), dtype=dtype).view(shape)
        tensors[name] = full.reshape(*full.shape[:2], -1)[..., 0].contiguous() if full.dim() > 1 else full.unsqueeze(1)
    if case.function == "momentum" and (tensors["grad"].dtype == torch.float64) != (dtype == torch.float64):
        tensors["grad"] = tensors["grad"].to(dtype)
    if "mask" in options:
        tensors["mask"] = torch.empty_like(tensors["x"], dtype=torch.bool, memory_format=batch).copy_(options["mask"])
    tensors |= {{"std": "deviation"}.get(k, k): options[k] for k in ("active", "out", "mean", "std") if k in options}
    if "out" in options and not one_stride(tensors["x"], options["out"]):
        del tensors["out"]
        case = replace(case, options={k: v for k, v in options.items() if k not in ("out", "mean", "std")})
    box = [spread(b, (1,), dtype, True)[0] * sign for sign, b in ((-1, -case.box[0]), (1, case.box[1]))]
    settings = {"lowest": box[0], "highest": box[1], "decay": 0.9, "first": options.get("first", False)}
    memory = run_step(attack_steps, function, tensors, **settings)
    written = [name for name in ("x_adv", "x_prev", "momentum", "out") if name in tensors]
    check(case, {name: result(memory, tensors, name) for name in written})


def one_stride(x, out) -> bool:
    """Whether one stride steps through the places of ``out`` in x's order; else operators copy."""
    places = sorted((a, n, b) for a, n, b in zip(x.stride()[2:], x.shape[2:], out.stride()[2:], strict=True) if n > 1)
    return all(b == places[0][2] * math.prod(n for _, n, _ in places[:i]) for i, (_, _, b) in enumerate(places))


@not_on_the_interpreter
def test_interpreted():
    run_interpreted(__file__, "exact")
