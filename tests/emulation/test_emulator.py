"""The emulator itself: that it runs kernels as a GPU does, and reports what they do wrong."""

import ctypes
import math

import numpy as np
import pytest
import torch
from emulated import ORDERS, KernelError, Memory, poison

KERNELS = [
    "block_sum",
    "block_sum_without_first_barrier",
    "block_sum_without_second_barrier",
    "warp_sums",
    "some_lanes_shuffle",
    "some_threads_wait",
    "barriers_apart",
    "unwritten_shared_memory",
    "copy",
    "order_of_threads",
    "blocks_that_run",
    "dynamic_shared",
]


def run(probes, kernel, values, out, grid=1, block=64, size=None, grid_y=1, **settings):
    size = ctypes.c_int64(out.tensor.numel() if size is None else size)
    pointers = [ctypes.c_void_p(m.address) for m in (values, out)]
    memory = [values] if values is out else [values, out]
    probes.call("probe", KERNELS.index(kernel), *pointers, size, grid, grid_y, block, memory=memory, **settings)
    return out.tensor


def numbers(size):
    return Memory(torch.arange(1.0, size + 1))


def block_sums(probes, kernel, order, seed):
    return run(probes, kernel, numbers(384), poison(torch.empty(6)), grid=3, order=order, seed=seed)


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_barriers(probes, order, seed):
    assert torch.equal(block_sums(probes, "block_sum", order, seed), numbers(384).tensor.view(6, 64).sum(1))


@pytest.mark.parametrize("barrier", ["first", "second"])
def test_a_missing_barrier_shows(probes, barrier):
    kernel = f"block_sum_without_{barrier}_barrier"
    expected = numbers(384).tensor.view(6, 64).sum(1)
    assert not all(torch.equal(block_sums(probes, kernel, *order), expected) for order in ORDERS)


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_shuffles(probes, order, seed):
    values = numbers(256)
    out = run(probes, "warp_sums", values, poison(torch.empty(16)), grid=2, block=128, order=order, seed=seed)
    assert torch.equal(out.view(8, 2), values.tensor.view(8, 32).sum(1, keepdim=True).expand(8, 2))


@pytest.mark.parametrize(
    ("kernel", "block", "message"),
    [
        ("some_threads_wait", 64, r"block 0: thread 0 waits at the barrier in .*probes.cpp:\d+, thread 10 has ended"),
        ("barriers_apart", 64, r"thread 0 waits at the barrier in .*:\d+, thread 32 waits at the barrier in .*:\d+"),
        ("some_lanes_shuffle", 64, r"waits at the shuffle in .*, thread 5 has ended"),
        ("warp_sums", 16, r"waits at the shuffle in .* for lanes that never come"),
    ],
)
@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_threads_that_do_not_meet(probes, kernel, block, message, order, seed):
    out = poison(torch.empty(64))
    with pytest.raises(KernelError, match=message):
        run(probes, kernel, numbers(64), out, block=block, size=10, order=order, seed=seed)
    # And the next launch is none the worse.
    test_barriers(probes, order, seed)


def test_shared_memory_is_poisoned_before_every_block(probes):
    out = poison(torch.zeros(128))
    out.tensor.zero_()
    assert run(probes, "unwritten_shared_memory", numbers(1), out, grid=3).isnan().all()


def test_shared_memory_of_a_launch_is_poisoned_before_every_block(probes):
    out = poison(torch.zeros(16))
    out.tensor.zero_()
    assert run(probes, "dynamic_shared", numbers(16), out, grid=2).isnan().all()


def test_a_store_behind_the_shared_memory_of_a_launch(probes):
    with pytest.raises(KernelError, match="block 0: a store behind the end of 64 bytes of shared memory"):
        run(probes, "dynamic_shared", numbers(17), poison(torch.zeros(17)))


@pytest.mark.parametrize("size", [4, 64, 1000])
def test_accesses_are_counted(probes, size):
    values, out = numbers(size), poison(torch.empty(size))
    assert torch.equal(run(probes, "copy", values, out, grid=16), values.tensor)
    assert values.counts == {"loads": {16: size // 4}, "stores": {}}
    assert out.counts == {"loads": {}, "stores": {16: size // 4}}


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        ((1, 0), 64, "block 0: thread 0: a load of 16 bytes is misaligned"),
        ((0, 1), 64, "a store of 16 bytes is misaligned"),
        ((0, 0), 68, "block 0: thread 16: a load of 16 bytes is outside of every buffer, 256 bytes into one of 256"),
        ((0, 0), 1e12, "thread 16: a load of 16 bytes is outside"),
    ],
)
def test_wrong_accesses(probes, offset, size, message):
    values, out = Memory(torch.ones(64), offset[0]), poison(torch.empty(64), offset[1])
    with pytest.raises(KernelError, match=message):
        run(probes, "copy", values, out, block=1024, size=int(size))


def test_part_of_an_access_outside(probes):
    with pytest.raises(KernelError, match="thread 15: a store of 16 bytes is outside of every buffer"):
        run(probes, "copy", numbers(64), poison(torch.empty(63)), block=64)


def test_inputs_are_not_written_to(probes):
    values = numbers(64)
    with pytest.raises(KernelError, match="a store of 16 bytes is to an input"):
        run(probes, "copy", values, values, block=64)


def test_unreported_writes_show_in_the_guard_zones(probes):
    out = poison(torch.empty(4))
    with pytest.raises(AssertionError, match=r"written to: bytes \[16, 17, 18, 19\]|written to: bytes \[18, 19\]"):
        run(probes, "blocks_that_run", numbers(1), out, grid=5, block=1)


def order_of_threads(probes, **settings):
    out = poison(torch.empty(7))
    out.tensor.zero_()
    return run(probes, "order_of_threads", numbers(1), out, grid=2, block=3, size=6, **settings)[:6].tolist()


def test_orders(probes):
    assert order_of_threads(probes) == [0, 1, 2, 3, 4, 5]
    assert order_of_threads(probes, order="descending") == [5, 4, 3, 2, 1, 0]
    shuffled = {seed: order_of_threads(probes, order="shuffled", seed=seed) for seed in range(9)}
    assert all(sorted(found) == [0, 1, 2, 3, 4, 5] for found in shuffled.values())
    assert len({tuple(found) for found in shuffled.values()}) > 5
    assert shuffled[3] == order_of_threads(probes, order="shuffled", seed=3)


@pytest.mark.parametrize(("edge", "expected"), [(0, range(20)), (3, [0, 1, 2, 17, 18, 19]), (15, range(20))])
def test_blocks_at_the_edges(probes, edge, expected):
    out = poison(torch.empty(20))
    run(probes, "blocks_that_run", numbers(1), out, grid=5, grid_y=4, block=1, edge_blocks=edge)
    assert out.tensor.nonzero().numel() == 20  # NaN is not zero
    assert (out.tensor == 1).nonzero().flatten().tolist() == list(expected)


@pytest.mark.parametrize(("grid", "grid_y", "block"), [(0, 1, 32), (1, 65536, 32), (1, 1, 1025), (1, 1, 0)])
def test_impossible_launches(probes, grid, grid_y, block):
    with pytest.raises(KernelError, match=f"a launch of {grid} x {grid_y} x 1 blocks of {block} threads"):
        run(probes, "blocks_that_run", numbers(1), numbers(1), grid=grid, grid_y=grid_y, block=block)


# Function, its exact form, points, and the largest error: relative, or absolute.
APPROXIMATIONS = {
    "ex2": (np.exp2, np.linspace(-125.9, 127.9, 4001), lambda x, y: y * 2.0**-22),
    "rcp": (np.reciprocal, np.geomspace(1e-37, 1e37, 4001), lambda x, y: np.spacing(y.astype(np.float32))),
    "sqrt": (np.sqrt, np.geomspace(1e-37, 1e38, 4001), lambda x, y: y * 2.0**-23),
    "lg2": (
        np.log2,
        np.geomspace(1e-37, 1e38, 2001).tolist() + np.linspace(0.5, 2, 2001).tolist(),
        lambda x, y: np.where((x > 0.5) & (x < 2), 2.0**-22, abs(y) * 2.0**-22),
    ),
}


@pytest.mark.parametrize("direction", [0, 1, -1])
@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_approximations_are_as_inaccurate_as_allowed(probes, name, direction):
    exact, points, limit = APPROXIMATIONS[name]
    probes.configure(direction=direction)
    x = np.array(points, dtype=np.float32)
    y = np.array([probes.library.approximate(list(APPROXIMATIONS).index(name), v) for v in x.tolist()])
    expected = exact(x.astype(np.float64))
    error = (y - expected) / limit(x, expected)
    assert abs(error).max() <= 1
    if direction >= 0:
        assert error.max() > 0.95
    if direction <= 0:
        assert error.min() < -0.95
    if direction == 0:
        assert abs(error.mean()) < 0.1
        assert abs(error).mean() > 0.4


INF, NAN, TINY = math.inf, math.nan, 1e-40
SPECIAL = {
    "ex2": {-INF: 0.0, -TINY: 1.0, -0.0: 1.0, TINY: 1.0, -126.5: 0.0, 128.0: INF, INF: INF, NAN: NAN},
    "rcp": {-INF: -0.0, -TINY: -INF, TINY: INF, 0.0: INF, 2.0**127: 0.0, INF: 0.0, NAN: NAN},
    "sqrt": {-INF: NAN, -1.0: NAN, -TINY: -0.0, 0.0: 0.0, TINY: 0.0, INF: INF, NAN: NAN},
    "lg2": {-INF: NAN, -1.0: NAN, -TINY: -INF, 0.0: -INF, TINY: -INF, INF: INF, NAN: NAN},
}


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_special_cases_of_approximations(probes, name):
    """As in the PTX manual."""
    probes.configure()
    found = {x: probes.library.approximate(list(APPROXIMATIONS).index(name), x) for x in SPECIAL[name]}
    assert str(found) == str(SPECIAL[name])
