"""The GPU's Linf steps: bit for bit the CPU's; momentum, which needs a sum, within its bound."""

import itertools

import pytest
import torch
from attack_steps import result, run_step
from calls import DTYPES
from emulated import ORDERS
from raw import needs_extension
from step_samples import bits, pixels

pytestmark = needs_extension
RAW = torch.ops.sat_kernels
TYPES = pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
GRADS = pytest.mark.parametrize("grad_dtype", DTYPES, ids=str)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def images(shape, dtype, grad_dtype, layout=torch.contiguous_format, seed=0):
    """x_adv, grad, x and the points before, in one layout."""
    x_adv, grad, x = pixels(shape, dtype, grad_dtype, seed)
    x_prev = pixels(shape, dtype, dtype, seed + 1)[0]
    found = {"x_adv": x_adv, "grad": grad, "x": x, "x_prev": x_prev}
    return {k: v.contiguous(memory_format=layout) if v.dim() == 4 else v for k, v in found.items()}


def by_cpu(function, tensors, first=False, decay=1.0):
    """The same by the CPU's kernel; gives the tensors that it writes."""
    given = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in tensors.items()}
    eps, alpha = given["eps"], given["alpha"]
    number, of = (
        [v if isinstance(v, float) is want else d for v in (eps, alpha)] for want, d in ((True, 0.0), (False, None))
    )
    options = [given.get(k) for k in ("active", "out", "mean", "deviation")]
    if function == "linf":
        RAW.pgd_step_linf_(
            given["x_adv"], given.get("grad"), given["x"], *number, *of, 0.0, 1.0, given.get("mask"), *options
        )
    elif function == "apgd_linf":
        steps = alpha if of[1] is not None else torch.full((1, 1), alpha, dtype=given["x"].dtype)
        RAW.apgd_step_linf_(
            given["x_adv"],
            given["x_prev"],
            given["grad"],
            given["x"],
            number[0],
            of[0],
            steps,
            first,
            0.0,
            1.0,
            *options,
        )
    else:
        RAW.momentum_step_linf_(
            given["x_adv"], given["momentum"], given["grad"], given["x"], *number, decay, *of, 0.0, 1.0,
            given.get("mask"), *options,
        )  # fmt: skip
    return given


def check(attack_steps, function, tensors, **settings):
    tensors = {k: v for k, v in tensors.items() if function == "apgd_linf" or k != "x_prev"}
    memory = run_step(attack_steps, function, tensors, **settings)
    expected = by_cpu(function, tensors, **{k: v for k, v in settings.items() if k in ("first", "decay")})
    for name in ("x_adv", "x_prev", "out"):
        if name in tensors:
            assert torch.equal(bits(result(memory, tensors, name)), bits(expected[name])), name
    return memory


STEP = {"eps": 8 / 255, "alpha": 2 / 255}
FUNCTIONS = pytest.mark.parametrize("function", ["linf", "apgd_linf"])


@GRADS
@TYPES
@FUNCTIONS
def test_sizes(attack_steps, function, dtype, grad_dtype):
    pieces = [16 // dtype.itemsize * n for n in (1, 32, 128, 256)]
    for size in sorted({1, *(n + d for n in pieces for d in (-1, 0, 1) if n + d > 0)}):
        check(attack_steps, function, {**images((1, size), dtype, grad_dtype, seed=size), **STEP})
    check(attack_steps, function, {**images((3, 500), dtype, grad_dtype), **STEP, "active": torch.tensor([True] * 3)})


@pytest.mark.parametrize(("eps", "alpha"), [(0.0, 0.1), (0.031, 1.0), (1e-40, 1e-41), (0.3, 0.0), (1e30, 1e30)])
@TYPES
@FUNCTIONS
def test_sizes_of_steps(attack_steps, function, dtype, eps, alpha):
    for first in (False, True) if function == "apgd_linf" else (False,):
        check(attack_steps, function, {**images((1, 2000), dtype, dtype), "eps": eps, "alpha": alpha}, first=first)


def options(shape, dtype, seed=0):
    """Of everything that a step may be given."""
    generator = torch.Generator().manual_seed(seed)
    samples, channels = shape[:2]
    found = {"eps": torch.rand(samples, channels, generator=generator, dtype=dtype) * 0.1}
    found["alpha"] = torch.rand(samples, 1, generator=generator, dtype=dtype) * 0.05
    found["mask"] = torch.rand(shape, generator=generator) < 0.7
    found["active"] = torch.rand(samples, generator=generator) < 0.7
    found["mean"], found["deviation"] = torch.linspace(0.4, 0.6, channels), torch.linspace(0.2, 0.3, channels)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (5, 3, 8, 8), (3, 1, 9, 3), (2, 24, 4, 1), (300, 3, 1, 1)], ids=str)
@TYPES
@FUNCTIONS
def test_all_options(attack_steps, function, dtype, shape, layout):
    """With the network's input in every type and layout."""
    for grad_dtype, out_dtype, out_layout in zip(
        DTYPES, (DTYPES[0], *DTYPES[2:], DTYPES[2]), [*LAYOUTS] * 2, strict=True
    ):
        given = images(shape, dtype, grad_dtype, LAYOUTS[layout]) | options(shape, dtype)
        given["mask"] = given["mask"].contiguous(memory_format=LAYOUTS[layout])
        given["out"] = torch.full(shape, 7.0, dtype=out_dtype).contiguous(memory_format=LAYOUTS[out_layout])
        if function == "apgd_linf":
            given.pop("mask")
        check(attack_steps, function, given)


@pytest.mark.parametrize("option", ["eps", "alpha", "mask", "active", "out", "no grad"])
@TYPES
def test_each_option(attack_steps, dtype, option):
    shape = (3, 3, 11, 7)
    given = images(shape, dtype, dtype) | STEP
    given |= {option: options(shape, dtype)[option]} if option not in ("out", "no grad") else {}
    given |= {"out": torch.zeros(shape)} if option == "out" else {}
    if option == "no grad":
        given.pop("grad")
    check(attack_steps, "linf", given)


def test_more_samples_than_a_grid_is_high(attack_steps):
    eps = torch.linspace(0.001, 0.3, 70_001).unsqueeze(1)
    check(attack_steps, "linf", {**images((70_001, 2), torch.float32, torch.bfloat16), "eps": eps, "alpha": eps / 4})


@pytest.mark.parametrize("shape", [(1, 129), (1, 4096), (3, 3, 8, 4)], ids=str)
@TYPES
@FUNCTIONS
def test_misaligned_pointers(attack_steps, function, dtype, shape):
    given = images(shape, dtype, torch.bfloat16) | STEP
    if len(shape) == 4:
        given |= {"out": torch.zeros(shape, dtype=torch.bfloat16), "mask": torch.ones(shape, dtype=torch.bool)}
    if function == "apgd_linf":
        given.pop("mask", None)
    names = [k for k, v in given.items() if isinstance(v, torch.Tensor) and (k != "x_prev" or function == "apgd_linf")]
    for moved in (*([k] for k in names), names):
        for offset in (1, 3):
            check(attack_steps, function, given, offsets=dict.fromkeys(moved, offset))


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@FUNCTIONS
def test_order_of_threads(attack_steps, function, order, seed):
    shape = (2, 3, 20, 20)
    given = images(shape, torch.float32, torch.float32) | options(shape, torch.float32)
    given["out"] = torch.zeros(shape).contiguous(memory_format=torch.channels_last)
    if function == "apgd_linf":
        given.pop("mask")
    check(attack_steps, function, given, order=order, seed=seed)


# What each tensor's elements are read and written: the network's input costs one more write of its own size.
TRAFFIC = {
    "linf": {"x_adv": (1, 1), "grad": (1, 0), "x": (1, 0)},
    "apgd_linf": {"x_adv": (1, 1), "grad": (1, 0), "x": (1, 0), "x_prev": (1, 1)},
    "momentum_linf": {"x_adv": (1, 1), "grad": (2, 0), "x": (1, 0), "momentum": (1, 1)},
}
OPTIONAL = {"mask": (1, 0), "out": (0, 1)}


def check_traffic(memory, function, tensors):
    """Bytes; and, but for momentum, in pieces that go with 16 bytes of x_adv."""
    pieces = tensors["x_adv"].numel() * tensors["x_adv"].element_size() // 16
    for name, (loads, stores) in (TRAFFIC[function] | OPTIONAL).items():
        if name not in tensors:
            continue
        size = tensors[name].numel() * tensors[name].element_size()
        counts = memory[name].counts
        assert sum(w * n for w, n in counts["loads"].items()) == loads * size, name
        assert sum(w * n for w, n in counts["stores"].items()) == stores * size, name
        if function != "momentum_linf":
            width = min(16, size // pieces)
            for kind, times in (("loads", loads), ("stores", stores)):
                assert counts[kind] == ({width: size // width} if times else {}), name


@pytest.mark.parametrize("extra", [(), ("mask",), ("out",), ("mask", "out", "active")], ids=" ".join)
@GRADS
@TYPES
@pytest.mark.parametrize("function", TRAFFIC)
def test_accesses(attack_steps, function, dtype, grad_dtype, extra):
    if function == "momentum_linf" and (grad_dtype == torch.float64) != (dtype == torch.float64):
        pytest.skip("converted before")
    shape = (2, 3, 16, 8)
    given = {
        k: v for k, v in images(shape, dtype, grad_dtype).items() if k != "x_prev" or function == "apgd_linf"
    } | STEP
    if function == "momentum_linf":  # which looks once more at gradients that are not finite
        given |= {"momentum": torch.randn(shape, dtype=dtype), "grad": given["grad"].nan_to_num(0, 1, -1)}
    given |= {"out": torch.zeros(shape, dtype=torch.bfloat16)} if "out" in extra else {}
    given |= {"mask": torch.ones(shape, dtype=torch.bool)} if "mask" in extra and function != "apgd_linf" else {}
    given |= {"active": torch.tensor([True, True])} if "active" in extra else {}
    check_traffic(run_step(attack_steps, function, given), function, given)


def test_samples_that_are_not_active_cost_nothing(attack_steps):
    given = images((2, 3, 16, 8), torch.float32, torch.float32) | STEP | {"active": torch.tensor([False, False])}
    given.pop("x_prev")
    memory = run_step(attack_steps, "linf", given)
    assert all(not memory[k].counts["loads"] and not memory[k].counts["stores"] for k in ("x_adv", "grad", "x"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 3, 8, 8), (3, 2, 31, 37), (1, 3, 120, 110)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "grad_dtype"), [*itertools.product(DTYPES[:1], [DTYPES[0], *DTYPES[2:]]), DTYPES[1:2] * 2], ids=str
)
def test_momentum(attack_steps, dtype, grad_dtype, shape, layout):
    """The sum's order differs: the momentum is within some units of what it is made of, and the step exactly its."""
    given = images(shape, dtype, grad_dtype, LAYOUTS[layout]) | options(shape, dtype)
    given.pop("x_prev")
    given["momentum"] = torch.randn(shape, dtype=dtype).contiguous(memory_format=LAYOUTS[layout])
    given["mask"] = given["mask"].contiguous(memory_format=LAYOUTS[layout])
    given["out"] = torch.full(shape, 7.0, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
    memory = run_step(attack_steps, "momentum_linf", given, decay=0.9)
    expected = by_cpu("momentum_linf", given, decay=0.9)
    found = result(memory, given, "momentum")
    eps = torch.finfo(dtype).eps
    size = 0.9 * given["momentum"].abs() + (expected["momentum"] - 0.9 * given["momentum"]).abs()
    assert ((found - expected["momentum"]).abs() <= 4 * eps * size).all()
    assert (found[~given["active"]] == given["momentum"][~given["active"]]).all()
    # The step goes along what is stored.
    along = by_cpu("linf", {**given, "grad": found})
    for name in ("x_adv", "out"):
        assert torch.equal(bits(result(memory, given, name)), bits(along[name])), name


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_momentum_does_not_depend_on_the_order_of_threads(attack_steps, order, seed):
    given = images((2, 3000), torch.float32, torch.float32) | STEP | {"momentum": torch.zeros(2, 3000)}
    given.pop("x_prev")
    first = run_step(attack_steps, "momentum_linf", given)
    other = run_step(attack_steps, "momentum_linf", given, order=order, seed=seed)
    for name in ("x_adv", "momentum"):
        assert torch.equal(bits(first[name].tensor), bits(other[name].tensor))
