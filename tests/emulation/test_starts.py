"""The GPU's random starts: against the plain path and the CPU's kernels, and what they read and write."""

import pytest
import torch
from emulated import ORDERS

from sat_kernels.ops import random_start
from sat_kernels.testing import check_feasible

FLOATS = [torch.float32, torch.float64]
STARTS = [(norm, init) for norm in ("Linf", "L2") for init in ("uniform", "uniform_ball", "radial", "sphere", "normal")]
STARTS += [("L1", init) for init in ("uniform_ball", "radial", "sphere", "zero")] + [("Linf", "normal(0.3)")]
# Fewer elements than a warp has threads, about as many as a block, and more.
SHAPES = [(3, 1), (2, 31), (2, 3, 8, 8), (2, 3, 19, 19), (1, 5, 30, 31), (5, 2)]


class Subclass(torch.Tensor):
    """Kernels are for plain tensors: a subclass takes the reference path."""


def check(x, norm, init, eps=0.3, **settings):
    settings = {"eps": eps, "norm": norm, "init": init, "seed": 2**40 + 7, "restart": 3, **settings}
    found = random_start(x, **settings)
    expected = random_start(x.as_subclass(Subclass), **settings).as_subclass(torch.Tensor)
    exact = norm == "Linf" and init in ("uniform", "uniform_ball")
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if exact else 2e-6)
    assert found.stride() == x.stride()
    assert check_feasible(found, x, eps, norm).violations == 0
    return found


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("norm", "init"), STARTS)
def test_every_start(starts_and_state, norm, init, dtype):
    for shape in SHAPES:
        x = torch.rand(shape, dtype=dtype)
        check(
            x, norm, init, eps=torch.rand(shape[0], dtype=dtype), sample_ids=torch.randint(-(2**62), 2**62, shape[:1])
        )
        if len(shape) == 4:
            check(x.to(memory_format=torch.channels_last), norm, init)


def test_numbers_in_memory(starts_and_state):
    x = torch.rand(4, 3, 5)
    settings = {"eps": torch.tensor(0.2), "seed": torch.tensor(-5), "restart": torch.tensor(2)}
    assert torch.equal(random_start(x, **settings), random_start(x, eps=0.2, seed=-5, restart=2))


def test_many_blocks_and_samples(starts_and_state):
    check(torch.rand(2, 2049 * 128), "Linf", "uniform")
    check(torch.rand(65_600, 1), "Linf", "uniform")


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_order_of_threads(starts_and_state, order, seed):
    starts_and_state.settings = {"order": order, "seed": seed}
    for norm, init in (("Linf", "uniform"), ("Linf", "sphere"), ("L2", "uniform_ball"), ("L1", "radial")):
        check(torch.rand(2, 2000), norm, init)


@pytest.mark.parametrize("direction", [1, -1])
def test_rough_special_functions(starts_and_state, direction):
    starts_and_state.settings = {"direction": direction}
    for norm, init in (("Linf", "normal(0.3)"), ("L2", "uniform_ball"), ("L1", "sphere")):
        check(torch.rand(2, 3000), norm, init)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("norm", "init"), [("Linf", "uniform"), ("Linf", "sphere"), ("L2", "radial"), ("L1", "sphere")]
)
def test_accesses(starts_and_state, norm, init, dtype):
    """x is read once and x_adv written once, whatever the address; noise is nowhere in memory."""
    for offset in (0, 1):
        starts_and_state.offset = offset
        check(torch.rand(3, 1000, dtype=dtype), norm, init)
        memory = starts_and_state.memory
        assert memory["x"].counts == {"loads": {dtype.itemsize: 3000}, "stores": {}}
        assert memory["x_adv"].counts == {"loads": {}, "stores": {dtype.itemsize: 3000}}
