"""The GPU's L2 and L1 steps: the CPU's but for the order of sums, and feasible in exact arithmetic."""

import itertools
import math

import pytest
import torch
from calls import DTYPES
from emulated import ORDERS
from norm_checks import check, run
from raw import needs_extension
from step_samples import bits, pixels

pytestmark = needs_extension
TYPES = pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
FUNCTIONS = pytest.mark.parametrize("function", ["l2", "apgd_l2", "l1", "apgd_l1"])
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# Of each of 1,024 threads: csrc/cuda/team.cuh.
IN_REGISTERS = {torch.float32: 3 * 1024, torch.float64: 2 * 1024}


def images(shape, dtype, grad_dtype=None, layout=torch.contiguous_format, seed=0):
    """x_adv within 0.1 of x, mostly, a gradient and the points before, in one layout."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=dtype)
    moves, before, grad = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(3))
    found = {"x": x, "x_adv": (x + 0.05 * moves).clamp(0, 1), "x_prev": (x + 0.05 * before).clamp(0, 1)}
    found["grad"] = grad.to(grad_dtype or dtype)
    return {k: v.contiguous(memory_format=layout) if v.dim() == 4 else v for k, v in found.items()}


def sizes_for(function, size):
    """A radius that cuts samples of so many elements, a step and how many elements it moves."""
    eps = 0.03 * size**0.5 if "l2" in function else 0.02 * size
    return {"eps": eps, "alpha": eps / 2} | ({"top_k": float(max(1, size // 20))} if "l1" in function else {})


@TYPES
@FUNCTIONS
def test_sizes(attack_steps, function, dtype):
    for size in (1, 2, 31, 32, 33, 1025, *(IN_REGISTERS[dtype] + d for d in (0, 1))):
        check(attack_steps, function, {**images((1, size), dtype, seed=size), **sizes_for(function, size)})


@pytest.mark.parametrize("factors", [(0.0, 0.0), (0.1, 3.0), (1.0, -0.5), (100.0, 0.01), (1e-30, 1e-30)], ids=str)
@TYPES
@FUNCTIONS
def test_sizes_of_steps(attack_steps, function, dtype, factors):
    given = sizes_for(function, 150)
    given |= {"eps": given["eps"] * factors[0], "alpha": given["alpha"] * factors[1]}
    for first in (False, True) if function == "apgd_l2" else (False,):
        check(attack_steps, function, {**images((2, 150), dtype), **given}, first=first)


@TYPES
def test_projection(attack_steps, dtype):
    for function, size in itertools.product(("l2", "l1"), (7, 200, 1100)):
        given = images((2, size), dtype) | sizes_for(function, size)
        del given["grad"]
        for scale in (0.3, 1e3):
            check(attack_steps, function, {**given, "eps": given["eps"] * scale})
        given["x_adv"] = given["x"] * 4 - 2
        check(attack_steps, function, given, lowest=-1.0, highest=math.inf)


def options(function, shape, dtype, seed=0):
    """Of everything that a step may be given."""
    generator = torch.Generator().manual_seed(seed)
    samples, size = shape[0], math.prod(shape[1:])
    found = sizes_for(function, size)
    for name in ("eps", "alpha"):
        found[name] = found[name] * torch.rand(samples, 1, generator=generator, dtype=dtype)
    if "l1" in function:
        found["top_k"] = torch.randint(1, size + 1, (samples, 1), generator=generator)
    if function in ("l2", "l1"):
        found["mask"] = torch.rand(shape, generator=generator) < 0.7
    found["active"] = torch.arange(samples) % 3 != 1
    found["mean"], found["deviation"] = torch.linspace(0.4, 0.6, shape[1]), torch.linspace(0.2, 0.3, shape[1])
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (4, 1, 9, 3), (2, 24, 4, 1), (40, 3, 1, 1)], ids=str)
@FUNCTIONS
def test_all_options(attack_steps, function, shape, layout):
    """With the network's input in every type and layout."""
    types = [(torch.float32, g) for g in (DTYPES[0], *DTYPES[2:])] + [DTYPES[1:2] * 2]
    outs = zip((*DTYPES[2:], DTYPES[0], DTYPES[2]), [*LAYOUTS.values()] * 2, strict=True)
    for (dtype, grad_dtype), (out_dtype, out_layout) in zip(types, outs, strict=True):
        given = images(shape, dtype, grad_dtype, LAYOUTS[layout]) | options(function, shape, dtype)
        if "mask" in given:
            given["mask"] = given["mask"].contiguous(memory_format=LAYOUTS[layout])
        given["out"] = torch.full(shape, 7.0, dtype=out_dtype).contiguous(memory_format=out_layout)
        check(attack_steps, function, given)


POISONS = {
    "everything": lambda g: pixels(g.shape, g.dtype, g.dtype)[1],
    "NaN": lambda g: g.where(torch.arange(g.shape[1]) % 3 > 0, math.nan),
    "only NaN": lambda g: torch.full_like(g, math.nan),
    "infinite": lambda g: g.where(torch.arange(g.shape[1]) % 50 > 0, math.inf * g.sign()),
    "zeros": torch.zeros_like,
    "denormal": lambda g: g * torch.finfo(g.dtype).smallest_normal * 1e-3,
    "small": lambda g: g * torch.finfo(g.dtype).smallest_normal * 1e3,
    "large": lambda g: g.sign() * torch.finfo(g.dtype).max / 2,
    "ties": torch.sign,
}


@pytest.mark.parametrize("poison", POISONS)
@TYPES
@FUNCTIONS
def test_gradients_that_are_hard(attack_steps, function, dtype, poison):
    given = images((2, 200), dtype)
    given["grad"] = POISONS[poison](given["grad"])
    check(attack_steps, function, given | sizes_for(function, 200))


@TYPES
@FUNCTIONS
def test_points_that_are_hard(attack_steps, function, dtype):
    for seed, size in ((0, 100), (1, 300)):
        x_adv, _, x = pixels((4, size), dtype, dtype, seed)
        given = {"x_adv": x_adv, "x": x, "x_prev": x, "grad": images((4, size), dtype)["grad"]}
        given |= sizes_for(function, size)
        check(attack_steps, function, given)
        x_adv[1, 3], x_adv[2, 5], x_adv[2, 7] = math.nan, math.inf, -math.inf
        found = check(attack_steps, function, given)["x_adv"].tensor.view(4, size)
        assert found[1, 3].isnan()
        assert function == "apgd_l2" or found.isnan().sum() == 1  # its momentum from infinity is NaN


@pytest.mark.parametrize("size", [129, 3073])
@FUNCTIONS
def test_misaligned_pointers(attack_steps, function, size):
    given = images((1, size), torch.float32, torch.bfloat16) | sizes_for(function, size)
    check(attack_steps, function, given, offsets=dict.fromkeys(given, 1))


@pytest.mark.parametrize("shape", [(3, 2, 10, 8), (1, 1, 60, 54)], ids=str)
@FUNCTIONS
def test_does_not_depend_on_the_order_of_threads(attack_steps, function, shape):
    given = images(shape, torch.float32) | options(function, shape, torch.float32)
    given["out"] = torch.zeros(shape)
    if function != "apgd_l2":
        del given["x_prev"]
    first, *others = (run(attack_steps, function, given, order=order, seed=seed) for order, seed in ORDERS)
    for other, name in itertools.product(others, ("x_adv", "out", "x_prev")):
        if name in given:
            assert torch.equal(bits(first[name].tensor), bits(other[name].tensor)), name


# How often each element is read and written: sums, then the step; APGD projects a second time. L1 reads the image for
# the candidates, the moves and the result, what it holds as often as its searches need.
TRAFFIC = {
    "l2": {"x_adv": (2, 1), "grad": (2, 0), "x": (2, 0), "mask": (2, 0)},
    "apgd_l2": {"x_adv": (4, 2), "grad": (2, 0), "x": (3, 0), "x_prev": (1, 1)},
    "l1": {"x_adv": (3, 1), "grad": (2, 0), "x": (2, 0), "mask": (2, 0)},
}


@pytest.mark.parametrize("extra", [(), ("mask",), ("out", "active")], ids=" ".join)
@pytest.mark.parametrize("size", [384, 3073])
@TYPES
@pytest.mark.parametrize("function", TRAFFIC)
def test_accesses(attack_steps, function, dtype, size, extra):
    given = images((2, size), dtype) | sizes_for(function, size)
    given |= {"mask": torch.ones(2, size, dtype=torch.bool)} if "mask" in extra else {}
    given |= {"out": torch.zeros(2, size), "active": torch.tensor([True, True])} if "out" in extra else {}
    wanted = TRAFFIC[function] | {"out": (0, 1)}
    given = {k: v for k, v in given.items() if k in wanted or k in ("eps", "alpha", "top_k", "active")}
    given = given if function != "apgd_l2" else {k: v for k, v in given.items() if k != "mask"}
    memory = run(attack_steps, function, given)
    for name, (loads, stores) in wanted.items():
        if name not in given:
            continue
        loads += "out" in given and name == "x_adv"
        width, size_ = given[name].element_size(), given[name].numel()
        assert memory[name].counts["loads"] == ({width: loads * size_} if loads else {}), name
        assert memory[name].counts["stores"] == ({width: stores * size_} if stores else {}), name
    if function == "l1" and size > IN_REGISTERS[dtype]:
        counts = memory["room"].counts
        assert counts["stores"] == {dtype.itemsize: 3 * 2 * size}
        # Two numbers of each element of each sample, in places of their own.
        held = memory["room"].tensor.view(2, 2, -1)[..., : size * dtype.itemsize].contiguous().view(dtype)
        assert held.isfinite().all()
        # Sixty passes over both would be more than ever found.
        assert counts["loads"][dtype.itemsize] <= 60 * 2 * 2 * size, counts["loads"][dtype.itemsize] / (4 * size)
    elif function == "l1":
        assert memory["room"].size == 0


def test_samples_that_are_not_active_cost_nothing(attack_steps):
    given = images((2, 100), torch.float32) | {"active": torch.tensor([False, False])}
    del given["x_prev"]
    for function in ("l2", "l1"):
        memory = run(attack_steps, function, given | sizes_for(function, 100))
        assert all(not memory[k].counts["loads"] and not memory[k].counts["stores"] for k in ("x_adv", "grad", "x"))
